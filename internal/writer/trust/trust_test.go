package trust

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer/servertest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A password goes to root, to ourselves and to the users of the service.
func TestConnected(t *testing.T) {
	mysql, err := user.Lookup("mysql")
	must(t, err)
	service, err := strconv.Atoi(mysql.Uid)
	must(t, err)
	dir := t.TempDir()
	for i, tt := range []struct {
		uid  int
		told bool
	}{{0, true}, {service, true}, {65534, false}, {123456, false}} {
		path := fmt.Sprintf("%s/%d", dir, i)
		servertest.Impostor(t, path, tt.uid, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		c, err := net.Dial("unix", path)
		must(t, err)
		defer c.Close()
		if err := Connected(c, "mariadb", "mysql"); (err == nil) != tt.told || err != nil && !problem.Is(err, problem.WriterPassword) {
			t.Errorf("user %d: %v", tt.uid, err)
		}
		if err := Connected(c, "postgres"); (err == nil) != (tt.uid == 0) {
			t.Errorf("user %d as another service: %v", tt.uid, err)
		}
	}
}

// process starts a program that waits until the test ends, and returns its number.
func process(t *testing.T, command ...string) int {
	t.Helper()
	p := exec.Command(command[0], append(command[1:], "sh", "-c", "echo $$; read x")...)
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

// Of processes it is who has started them, and in a container what that one is
// called there.
func TestProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: other users need root, and this is not root")
	}
	nobody := []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
	contained := func(mode os.FileMode) []string {
		table := filepath.Join(t.TempDir(), "passwd")
		must(t, errors.Join(os.WriteFile(table, []byte("root:x:0:0::/:/bin/sh\nmysql:x:65534:65534::/:/bin/sh\n"), mode), os.Chmod(table, mode)))
		return append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", `mount --bind "$1" /etc/passwd; shift; exec "$@"`, "sh", table}, nobody...)
	}
	for _, tt := range []struct {
		name    string
		command []string
		told    bool
	}{
		{"root", []string{"env"}, true},
		{"mysql", []string{"setpriv", "--reuid=mysql", "--clear-groups"}, true},
		{"nobody", nobody, false},
		{"root's program, started by nobody", []string{"setpriv", "--ruid=65534", "--clear-groups"}, false},
		{"one that calls himself root", append(nobody, "unshare", "--user", "--map-root-user"), false},
		{"mysql of a container", contained(0o644), true},
		{"mysql of a container in which all can be anybody", contained(0o666), false},
	} {
		err := Process(process(t, tt.command...), "mysql")
		if (err == nil) != tt.told || err != nil && !problem.Is(err, problem.WriterPassword) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := Process(1<<22+1, "mysql"); err == nil {
		t.Error("one that is not there is told")
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	if !Folder(dir) || Folder(dir+"/none") {
		t.Error("a folder of ours")
	}
	must(t, os.Chmod(dir, 0o777|os.ModeSticky))
	if Folder(dir) {
		t.Error("a folder of everybody's")
	}
}
