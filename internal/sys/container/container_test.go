package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// contained starts a process with mounts, a network and process numbers of its
// own, which runs a script and then stays until the test ends. It returns what
// the host calls it.
func contained(t *testing.T, script string, args ...string) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: namespaces need root, and this is not root")
	}
	c := exec.Command("sh", append([]string{"-c", `unshare --mount --net --pid --fork --kill-child --propagation private sh -euc "$@" </dev/null & u=$!; cat >&2; kill -KILL $(cat /proc/$u/task/$u/children) $u; wait`, "sh",
		script + "; mkdir -p /mnt/work; cd /mnt/work; echo ready; exec sleep 1000", "sh"}, args...)...)
	c.Stderr = os.Stderr
	c.WaitDelay = 10 * time.Second
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = c.Wait()
	})
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil || word != "ready" {
		t.Fatalf("the container says %q, %v", word, err)
	}
	unshare := children(t, c.Process.Pid, "unshare")
	return children(t, unshare, "sleep")
}

// children waits for the one child of a process that runs a program.
func children(t *testing.T, pid int, name string) int {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		must(t, err)
		for _, child := range strings.Fields(string(b)) {
			if comm, err := os.ReadFile("/proc/" + child + "/comm"); err == nil && strings.TrimSpace(string(comm)) == name {
				n, err := strconv.Atoi(child)
				must(t, err)
				return n
			}
		}
		if time.Now().After(end) {
			t.Fatalf("process %d has no child %s, but %q", pid, name, b)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a process with mounts of its own has as its files is found on the host.
func TestPath(t *testing.T) {
	host, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.MkdirAll(host+"/data/a b/c", 0o755))
	must(t, os.WriteFile(host+"/data/a b/file", nil, 0o644))
	must(t, os.MkdirAll(host+"/lower/old", 0o755))
	must(t, os.MkdirAll(host+"/upper/new", 0o755))
	must(t, os.Mkdir(host+"/workdir", 0o755))
	must(t, os.MkdirAll(host+"/named/upper/new", 0o700))
	must(t, os.MkdirAll(host+"/hidden/upper/new", 0o755))
	must(t, os.Mkdir(host+"/hidden/workdir", 0o755))
	pid := contained(t, `mount -t tmpfs none /mnt; mkdir /mnt/bound /mnt/memory /mnt/over /mnt/false
mount --bind "$1/data" /mnt/bound; ln -s /mnt/bound /mnt/link; ln -s '../a b' "/mnt/bound/a b/link"
mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/workdir" none /mnt/over
mount --bind "$1/hidden" "$1/named"
mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/named/upper,workdir=$1/named/workdir" none /mnt/false`, host)
	for _, tt := range []struct{ theirs, ours string }{
		{"/mnt/bound", "/data"},
		{"/mnt/bound/a b/c", "/data/a b/c"},
		{"/mnt/link/a b", "/data/a b"},
		{"/mnt/link/a b/file", "/data/a b/file"},
		{"/mnt/bound/a b/link/c", "/data/a b/c"},
		{"/mnt/over/new", "/upper/new"},
		{host + "/data", "/data"},
		{"/mnt/memory", ""},
		{"/mnt/false/new", ""}, // that path leads elsewhere on the host
		{"/mnt/over/old", ""},  // is in the image alone: nothing was ever changed
	} {
		got, err := Path(pid, tt.theirs)
		if tt.ours == "" {
			if !errors.Is(err, ErrUnseen) {
				t.Errorf("%s: %q, %v", tt.theirs, got, err)
			}
			continue
		}
		if err != nil || got != host+tt.ours {
			t.Errorf("%s is %q, %v; want %s", tt.theirs, got, err, host+tt.ours)
		}
	}
	if got, err := Path(pid, "/mnt/nosuch"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there is %q, %v", got, err)
	}
	if got, err := Folder(pid); !errors.Is(err, ErrUnseen) {
		t.Errorf("it works in %q, %v", got, err)
	}
	if got, err := Folder(os.Getpid()); err != nil || !strings.HasSuffix(got, "internal/sys/container") {
		t.Errorf("this process works in %q, %v", got, err)
	}
	if n, err := Number(pid); err != nil || n != 1 {
		t.Errorf("it is called %d by itself, %v", n, err)
	}
	if n, err := Number(os.Getpid()); err != nil || n != os.Getpid() {
		t.Errorf("this process is called %d, %v", n, err)
	}
}

// A socket is reached whatever its path, and the network that it was made in.
func TestSocket(t *testing.T) {
	host, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	l, err := net.Listen("unix", host+"/s")
	must(t, err)
	defer l.Close()
	pid := contained(t, `mount -t tmpfs none /mnt; mkdir /mnt/run; mount --bind "$1" /mnt/run; ln -s /mnt/run /mnt/link`, host)
	if at, err := Socket(pid, "/mnt/link/s"); err != nil || at != host+"/s" {
		t.Errorf("%q, %v", at, err)
	}
	f, err := Open(pid, "/mnt/link/s")
	must(t, err)
	defer f.Close()
	c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	must(t, err)
	c.Close()
	if at, err := Socket(pid, host+"/s"); err != nil || at != host+"/s" {
		t.Errorf("%q, %v", at, err)
	}
	if ours, err := Listens(os.Getpid(), host+"/s"); err != nil || !ours {
		t.Errorf("this process listens: %v, %v", ours, err)
	}
	if theirs, err := Listens(pid, "/mnt/link/s"); err != nil || theirs {
		t.Errorf("it listens to what leads to another's: %v, %v", theirs, err)
	}
	if at, err := Socket(pid, "/mnt/run/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%q, %v", at, err)
	}
}

// A port is reached from within, and its published address is found.
func TestNetwork(t *testing.T) {
	dir := t.TempDir()
	pid := contained(t, `ip link set lo up; ip addr add 198.51.100.7/32 dev lo`)
	if own, err := Network(pid); err != nil || !own {
		t.Errorf("a network of its own: %v, %v", own, err)
	}
	if own, err := Network(os.Getpid()); err != nil || own {
		t.Errorf("this process: %v, %v", own, err)
	}
	if c, err := Dial(t.Context(), pid, "127.0.0.1:7"); err == nil {
		c.Close()
		t.Error("somebody listens on a port that nobody listens on")
	}
	answer := exec.Command("nsenter", "--net=/proc/"+strconv.Itoa(pid)+"/ns/net", os.Args[0], "-test.run=^TestAnswer$")
	answer.Env = append(os.Environ(), "STILLPOINT_TEST_ANSWER=1")
	in, err := answer.StdinPipe()
	must(t, err)
	out, err := answer.StdoutPipe()
	must(t, err)
	must(t, answer.Start())
	defer func() { in.Close(); _ = answer.Wait() }()
	var address string
	_, err = fmt.Fscan(out, &address)
	must(t, err)
	c, err := Dial(t.Context(), pid, address)
	must(t, err)
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "from within" {
		t.Errorf("%q, %v", b, err)
	}
	if local, err := net.Dial("tcp", address); err == nil { // it would be chance
		local.Close()
		t.Logf("somebody else listens on %s", address)
	}

	program := filepath.Join(dir, proxy)
	must(t, exec.Command("cp", "/bin/sh", program).Run())
	publish := func(port string, command ...string) {
		t.Helper()
		p := exec.Command(command[0], append(command[1:], "-c", "echo ready; read x", "-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", port,
			"-container-ip", "198.51.100.7", "-container-port", "6379")...)
		stop, err := p.StdinPipe()
		must(t, err)
		ready, err := p.StdoutPipe()
		must(t, err)
		must(t, p.Start())
		t.Cleanup(func() { stop.Close(); _ = p.Wait() })
		_, err = fmt.Fscan(ready, &address)
		must(t, err)
	}
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	publish("16379", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program)
	publish("16380", "setpriv", "--ruid=65534", program)
	publish("16381", "unshare", "--user", "--map-root-user", program)
	publish("16382", "unshare", "--net", program)
	link := filepath.Join(t.TempDir(), proxy)
	must(t, os.Symlink("/bin/sh", link))
	publish("16383", link)
	if got := Published(pid, 6379); got != nil {
		t.Errorf("published at %q by somebody", got)
	}
	publish("16385", program)
	publish("16384", program)
	if got := Published(pid, 6379); !slices.Equal(got, []string{"127.0.0.1:16384", "127.0.0.1:16385"}) {
		t.Errorf("published at %q", got)
	}
	if got := append(Published(pid, 6380), Published(os.Getpid(), 6379)...); got != nil {
		t.Errorf("another port, another process: %q", got)
	}
	if own, err := Users(pid); err != nil || own {
		t.Errorf("users of its own: %v, %v", own, err)
	}
}

// Who has users of its own may have the address of another container.
func TestUsers(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, proxy)
	must(t, exec.Command("cp", "/bin/sh", program).Run())
	p := exec.Command(program, "-c", `setpriv --reuid=65534 --regid=65534 --clear-groups unshare --user --map-root-user --net sh -c 'ip link set lo up; ip addr add 198.51.100.7/32 dev lo; echo $$; read x'; :`,
		"-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", "16379", "-container-ip", "198.51.100.7", "-container-port", "6379")
	p.Stderr = os.Stderr
	stop, err := p.StdinPipe()
	must(t, err)
	out, err := p.StdoutPipe()
	must(t, err)
	must(t, p.Start())
	defer func() { stop.Close(); _ = p.Wait() }()
	var pid int
	_, err = fmt.Fscan(out, &pid)
	must(t, err)
	if !addresses(pid)["198.51.100.7"] {
		t.Errorf("it has %v", addresses(pid))
	}
	if own, err := Users(pid); err != nil || !own {
		t.Errorf("users of its own: %v, %v", own, err)
	}
	if got := Published(pid, 6379); got != nil {
		t.Errorf("published at %q", got)
	}
}

// TestAnswer is the server of TestNetwork.
func TestAnswer(t *testing.T) {
	if os.Getenv("STILLPOINT_TEST_ANSWER") == "" {
		return // TestNetwork starts it
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("from within"))
			c.Close()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestName(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, line := range []string{"0::/system.slice/docker-" + id + ".scope", "0::/docker/" + id, "0::/user.slice/libpod-" + id + ".scope/container"} {
		if all := name.FindAllString(line, -1); len(all) != 1 || all[0] != id {
			t.Errorf("%s: %q", line, all)
		}
	}
	for groups, want := range map[string]string{
		"0::/system.slice/docker-" + id + ".scope":                                      id[:12],
		"0::/system.slice/redis-server.service\n":                                       "redis-server.service",
		"0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n":         "postgresql@15-main.service",
		"0::/system.slice/containerd.service/redis.service":                             "containerd.service",
		"12:pids:/x\n1:name=systemd:/system.slice/mariadb.service\n0::/\n":              "mariadb.service",
		"0::/machine.slice/machine-db.scope/payload":                                    "machine-db.scope",
		"0::/lxc.payload.db/system.slice/redis.service":                                 "lxc.payload.db",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service\n":    "",
		"0::/user.slice/user-1000.slice/user@1000.service/system.slice/redis.service\n": "",
		"0::/user.slice/user-1000.slice/session-3.scope\n":                              "",
		"3:pids:/system.slice/elsewhere.service\n0::/\n":                                "",
		"0::/\n": "",
	} {
		if got := nameIn(groups); got != want {
			t.Errorf("%q: %q, want %q", groups, got, want)
		}
	}
	if got := Name(1); got != "process 1" && len(got) != 12 {
		t.Errorf("%q", got)
	}
}
