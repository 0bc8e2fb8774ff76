package redis

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/listener"
)

// impostor starts a process that listens as a server does and is called like
// one, by a command that is given the program. It waits until it listens, and
// returns what the host calls it.
func impostor(t *testing.T, network, address string, command ...string) int {
	t.Helper()
	program := filepath.Join(t.TempDir(), programs[0])
	self, err := os.Executable()
	must(t, err)
	must(t, exec.Command("cp", self, program).Run())
	dir := filepath.Dir(program) // for who is not root
	must(t, errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)))
	p := exec.Command(command[0], append(command[1:], program, "-test.run=^TestListen$")...)
	p.Env = append(os.Environ(), "STILLPOINT_TEST_LISTEN="+network+" "+address)
	p.Stderr = os.Stderr
	in, err := p.StdinPipe()
	must(t, err)
	out, err := p.StdoutPipe()
	must(t, err)
	must(t, p.Start())
	t.Cleanup(func() { in.Close(); _, _ = io.Copy(io.Discard, out); _ = p.Wait() })
	var pid int
	_, err = fmt.Fscan(out, &pid)
	must(t, err)
	return pid
}

// TestListen is the impostor's program.
func TestListen(t *testing.T) {
	var network, address string
	if n, _ := fmt.Sscan(os.Getenv("STILLPOINT_TEST_LISTEN"), &network, &address); n != 2 {
		return // impostor starts it
	}
	l, err := net.Listen(network, address)
	must(t, err)
	defer l.Close()
	fmt.Println(os.Getpid())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// Who has made himself users of his own is told no password, whatever address he
// has.
func TestForeign(t *testing.T) {
	w := New(Options{Logins: []Login{{Password: "everybody's"}, {Address: "127.0.0.1:16379", Password: "secret"}}})
	pid := impostor(t, "tcp", "127.0.0.1:0", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--map-root-user", "--mount")
	p, ok := w.place(pid)
	if !ok || !p.foreign || p.Network != "tcp" {
		t.Fatalf("%+v, %v", p, ok)
	}
	p.name = "127.0.0.1:16379"
	if in := w.instance(p); in.login != (Login{}) {
		t.Errorf("it is told %+v", in.login)
	}
	// As systemd does with PrivateUsers, which Debian's Redis has.
	pid = impostor(t, "tcp", "127.0.0.1:0", "unshare", "--user", "--map-root-user", "--mount")
	if p, ok := w.place(pid); !ok || p.foreign || w.instance(p).login.Password != "everybody's" {
		t.Errorf("one whom root gave users of its own: %+v, %v", p, ok)
	}
	pid = impostor(t, "tcp", "127.0.0.1:0", "unshare", "--mount")
	if p, ok := w.place(pid); !ok || p.foreign || w.instance(p).login.Password != "everybody's" {
		t.Errorf("one of ours: %+v, %v", p, ok)
	}
	// Anybody may start a program of that name, with our users.
	pid = impostor(t, "tcp", "127.0.0.1:0", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
	p, ok = w.place(pid)
	if in := w.instance(p); !ok || p.foreign || in.login != (Login{}) || !problem.Is(in.stranger, problem.WriterPassword) {
		t.Errorf("nobody's: %+v, %v, is told %+v", p, ok, in.login)
	}
	p.name = "127.0.0.1:16379"
	if in := w.instance(p); in.login.Password != "secret" || in.stranger != nil {
		t.Errorf("one that the configuration names: %+v", in.login)
	}
}

// Who lets the path of his socket lead to that of a server is not taken for it.
func TestImpostor(t *testing.T) {
	dir, theirs := t.TempDir(), t.TempDir()
	server := impostor(t, "unix", dir+"/s", "env")
	must(t, os.Mkdir(theirs+"/run", 0o755))
	pid := impostor(t, "unix", theirs+"/run/s", "env")
	w := New(Options{})
	if p, ok := w.place(pid); !ok || p.name != theirs+"/run/s" {
		t.Errorf("before: %+v, %v", p, ok)
	}
	must(t, os.Rename(theirs+"/run", theirs+"/hidden"))
	must(t, os.Symlink(dir, theirs+"/run"))
	if p, ok := w.place(pid); ok {
		t.Errorf("the impostor is %+v", p)
	}
	if p, ok := w.place(server); !ok || p.name != dir+"/s" || p.process != server {
		t.Errorf("the server is %+v, %v", p, ok)
	}
}

// Nobody takes the place of a server by a name that he gave himself.
func TestDistinct(t *testing.T) {
	at := func(address string) listener.Address { return listener.Address{Network: "tcp", Address: address} }
	of := func(places ...place) (got string) {
		for _, p := range distinct(places) {
			got += fmt.Sprintf("%s of %d; ", p.name, p.process)
		}
		return got
	}
	foreign := place{Address: at("127.0.0.1:1"), process: 7, pid: 7, name: "/data", foreign: true}
	first := place{Address: at("127.0.0.1:6379"), process: 8, pid: 8, name: "/data"}
	child := place{Address: at("127.0.0.1:6379"), process: 9, pid: 9, name: "/data"}
	second := place{Address: at("127.0.0.1:6380"), process: 10, pid: 10, name: "/data"}
	host := place{Address: at("127.0.0.1:1"), process: 11, name: "127.0.0.1:1"}
	same := place{Address: at("127.0.0.1:1"), process: 12, name: "127.0.0.1:1", foreign: true}
	for _, tt := range []struct{ got, want string }{
		{of(foreign), "/data of 7; "},
		{of(foreign, first), "/data of 8; /data:127.0.0.1:1 of 7; "},
		{of(first, child), "/data of 8; "},
		{of(first, child, second), "/data:127.0.0.1:6379 of 8; /data:127.0.0.1:6380 of 10; "},
		{of(same, host), "127.0.0.1:1 of 11; "},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
	w := New(Options{Logins: []Login{{Address: "/data", Password: "a"}, {Address: "/data:127.0.0.1:6380", Password: "b"}}})
	for i, p := range distinct([]place{first, second}) {
		if got := w.instance(p).login.Password; got != "ab"[i:i+1] {
			t.Errorf("%s is told %q", p.name, got)
		}
	}
}
