package redis

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/writer"
)

// newBox runs a shell script in a container, with mounts, a network and process numbers
// of its own, which is told of a folder, started by a command.
func newBox(t testing.TB, dir, script string, as ...string) {
	t.Helper()
	var said bytes.Buffer
	c := exec.Command("sh", append([]string{"-c", `"$@" </dev/null >&2 & u=$!; cat >&2; kill -KILL $(cat /proc/$u/task/$u/children) $u; wait`, "sh"},
		append(as, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-euc", script, "sh", dir)...)...)
	c.Stderr, c.WaitDelay = &said, 10*time.Second
	in, err := c.StdinPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("the container said %s", said.String())
		}
	})
}

// user runs a program as the user of servers.
const user = `setpriv --reuid=redis --regid=redis --clear-groups `

// folder is one that servers of any user reach.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	for up := dir; strings.HasPrefix(up, os.TempDir()+"/"); up = filepath.Dir(up) {
		must(t, os.Chmod(up, 0o755))
	}
	must(t, os.Chmod(dir, 0o777))
	return dir
}

// discovered waits until these servers are found, and no others that have the folder
// in their names, and returns them.
func discovered(t *testing.T, w *Writer, dir string, want ...string) (found []*instance) {
	t.Helper()
	var got []string
	for end := time.Now().Add(long); ; time.Sleep(50 * time.Millisecond) {
		all, err := w.Discover(t.Context(), writer.Scope{})
		found, got = nil, nil
		for _, in := range all {
			if id := in.About().ID; strings.Contains(id, dir) || slices.Contains(want, id) {
				found, got = append(found, in.(*instance)), append(got, id)
			}
		}
		if err == nil && slices.Equal(got, want) {
			return found
		}
		if time.Now().After(end) {
			t.Fatalf("found %q, want %q: %v", got, want, err)
		}
	}
}

// answers waits until a server can be brought to rest: it may still be starting.
func answers(t *testing.T, in *instance) {
	t.Helper()
	var err error
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = in.Check(t.Context()); err == nil {
			return
		}
	}
	t.Errorf("%s: %v", in.ID(), err)
}

// Two servers of one container have its data folder in common: what is configured for
// that is for both, and is no third server.
func TestSharedName(t *testing.T) {
	dir := folder(t)
	newBox(t, dir, `ip link set lo up; cd "$1"
for p in 6379 6380; do `+user+`redis-server --dir "$1" --dbfilename $p --port $p --bind 0.0.0.0 --protected-mode no --requirepass both & done
wait`)
	w := New(Options{Logins: []Login{{Password: "everybody's"}, {Address: dir, Password: "both"}}})
	want := []string{"redis:" + dir + ":127.0.0.1:6379", "redis:" + dir + ":127.0.0.1:6380"}
	for _, in := range discovered(t, w, dir, want...) {
		answers(t, in)
		if p := in.About().Paths; len(p) != 1 || p[0] != dir {
			t.Errorf("%s has its data in %q", in.ID(), p)
		}
	}
	// One that anybody may start, and looks the same, hides neither them nor what is
	// configured; and it is told nothing.
	stranger := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--map-root-user"}
	const theirs = `cd "$1"; exec redis-server --dir "$1" --dbfilename theirs --port 6381 --bind 0.0.0.0 --protected-mode no`
	newBox(t, dir, theirs, stranger...)
	want = append(want, "redis:"+dir+":127.0.0.1:6381")
	if found := discovered(t, w, dir, want...); found[2].login != (Login{}) {
		t.Errorf("a stranger is told %+v", found[2].login)
	}
}

// Where all that have a name are strangers, what is configured for it is a server that
// is somewhere else.
func TestSharedByStrangers(t *testing.T) {
	dir := folder(t)
	for _, port := range []string{"6381", "6382"} {
		newBox(t, dir, `cd "$1"; exec redis-server --dir "$1" --dbfilename `+port+` --bind 0.0.0.0 --protected-mode no --port `+port,
			"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "--map-root-user")
	}
	w := New(Options{Logins: []Login{{Address: dir, Password: "secret"}}})
	for _, in := range discovered(t, w, dir, "redis:"+dir, "redis:"+dir+":127.0.0.1:6381", "redis:"+dir+":127.0.0.1:6382") {
		if told := in.login != (Login{}); told != (in.ID() == "redis:"+dir) {
			t.Errorf("%s is told %+v", in.ID(), in.login)
		}
	}
}

// Of the addresses of a server the one that is configured is taken, else the first that
// nobody on the network can listen in on; one with none such is none.
func TestChoice(t *testing.T) {
	s := start(t)
	port := s.listen()
	both := []string{s.Socket(), "127.0.0.1:" + port}
	for _, address := range both {
		w := New(Options{Logins: []Login{{Address: address}}})
		p, ok := w.place(s.Process())
		if !ok || p.name != address || p.Address.Address != address || p.process != s.Process() {
			t.Errorf("%s is configured: %+v, %v", address, p, ok)
		}
	}
	w := New(Options{})
	if p, ok := w.place(s.Process()); !ok || p.name != s.Socket() {
		t.Errorf("with nothing configured: %+v, %v", p, ok)
	}

	for address, seen := range addresses(t) {
		if p, ok := w.place(startPlain(t, address)); ok != seen || ok && !strings.HasPrefix(p.name, net.JoinHostPort(address, "")) {
			t.Errorf("one that listens at %s: %+v, %v", address, p, ok)
		}
	}
}

// addresses are some of this host's: its loopbacks, where servers are seen, and, if it
// has one, that by which others reach it.
func addresses(t *testing.T) map[string]bool {
	t.Helper()
	list, err := net.InterfaceAddrs()
	must(t, err)
	all := map[string]bool{"127.0.0.1": true}
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		switch {
		case !ok:
		case n.IP.Equal(net.IPv6loopback):
			all["::1"] = true
		case n.IP.To4() != nil && !n.IP.IsLoopback() && len(all) < 3:
			all[n.IP.String()] = false
		}
	}
	return all
}

// startPlain starts a server that listens at an address, on no socket, and returns
// its process.
func startPlain(t *testing.T, address string) int {
	t.Helper()
	dir := folder(t)
	for range 20 {
		l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		must(t, err)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		must(t, l.Close()) // somebody else may take it now
		c := exec.Command("redis-server", "--dir", dir, "--save", "", "--bind", address, "--port", port)
		must(t, c.Start())
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		stop := func() { _ = c.Process.Kill(); <-ended }
		for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			rc, err := redis.Dial("tcp", net.JoinHostPort(address, port))
			if err == nil {
				rc.Close()
				t.Cleanup(stop)
				return c.Process.Pid
			}
			select {
			case err := <-ended:
				ended <- err
			default:
				continue
			}
			break
		}
		stop()
	}
	t.Fatalf("no server starts at %s", address)
	return 0
}

// publish publishes a port as Docker does: by a program that says so in its arguments.
func publish(t *testing.T, proxy string, args ...string) {
	t.Helper()
	c := exec.Command(proxy, append([]string{"-c", "echo ready; read x"}, args...)...)
	stop, err := c.StdinPipe()
	must(t, err)
	ready, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() { stop.Close(); _ = c.Wait() })
	_, err = fmt.Fscan(ready, new(string))
	must(t, err)
}

// A server in a container, which is talked to at whatever address it has there, is known
// by where its port is published: by the one of those addresses that is configured, else
// by the first.
func TestPublished(t *testing.T) {
	dir := folder(t)
	const inside = "198.51.100.77" // of TEST-NET-2, which nobody has
	newBox(t, dir, `ip link set lo up; ip address add `+inside+`/32 dev lo; cd "$1"
exec `+user+`redis-server --dir "$1" --port 6379 --bind `+inside+` --protected-mode no`)
	proxy := filepath.Join(t.TempDir(), "docker-proxy")
	must(t, exec.Command("cp", "/bin/sh", proxy).Run())
	for _, at := range []string{"127.0.0.1:16379", "127.0.0.2:16380"} {
		host, port, _ := net.SplitHostPort(at)
		publish(t, proxy, "-proto", "tcp", "-host-ip", host, "-host-port", port, "-container-ip", inside, "-container-port", "6379")
	}
	discovered(t, New(Options{}), dir, "redis:127.0.0.1:16379")
	w := New(Options{Logins: []Login{{Address: "127.0.0.2:16380", Password: "secret"}}})
	found := discovered(t, w, dir, "redis:127.0.0.2:16380")
	if found[0].login.Password != "secret" || found[0].pid == 0 {
		t.Errorf("%+v", found[0])
	}
}
