// Package servertest runs real PostgreSQL, MariaDB and Redis servers for tests:
// each with data of its own, as a user of its own, on a socket alone. What it
// runs ends with the test, also when the test fails, and with the test's
// process, however that ends. It knows how the servers are started, reached and
// stopped, and nothing of how they are backed up. No program is linked with it.
package servertest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A server is what all kinds have.
type server struct {
	testing.TB
	Dir  string // its own, with a short name: socket and log are here, and the data where nobody says otherwise
	Data string // resolved, or where it leads
	Stop func() // ends it at once, as a crash would

	as  *syscall.Credential
	pid int
}

// newServer is one of a user that was never started.
func newServer(t testing.TB, prefix, user string) server {
	t.Helper()
	as, err := credential(user)
	must(t, err)
	s := server{TB: t, as: as, Stop: func() {}}
	s.Dir = s.Owned(prefix)
	s.Data = s.Dir + "/data"
	return s
}

// credential is that of a user.
func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err, err2)
}

// Owned makes a directory of the server's user, which is removed with the test.
// Its name is short: that of a socket has at most 107 bytes.
func (s *server) Owned(prefix string) string {
	s.Helper()
	dir, err := ownedDir(prefix, s.as)
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(s, err)
	return dir
}

func ownedDir(prefix string, as *syscall.Credential) (string, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, int(as.Uid), int(as.Gid))
}

// Reach lets the server's user come to a directory of a test, and gives it to
// him.
func (s *server) Reach(dir string) {
	s.Helper()
	must(s, os.Chown(dir, int(s.as.Uid), int(s.as.Gid)))
	for up := filepath.Dir(dir); strings.HasPrefix(up, os.TempDir()+"/"); up = filepath.Dir(up) {
		st, err := os.Stat(up)
		must(s, err)
		must(s, os.Chmod(up, st.Mode().Perm()|0o111))
	}
}

// command is one of the server's user.
func command(as *syscall.Credential, path string, args ...string) *exec.Cmd {
	c := exec.Command(path, args...)
	c.SysProcAttr, c.Dir = &syscall.SysProcAttr{Credential: as}, "/"
	c.Env = []string{"LC_ALL=C", "PGDATABASE=postgres", "PGUSER=postgres", "PATH=" + os.Getenv("PATH")}
	return c
}

// Command is a program at a path, to be run as the server's user.
func (s *server) Command(path string, args ...string) *exec.Cmd { return command(s.as, path, args...) }

// run runs a command that must succeed.
func run(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(c.Args, " "), err, out)
	}
	return string(out)
}

// start starts the server, which gets the signal when Stop is called or this
// process ends.
func (s *server) start(signal, path string, args ...string) {
	s.Helper()
	c := command(s.as, "/bin/sh", append([]string{"-c", `signal=$1; shift; "$@" & echo $! >&3; exec 3>&-; cat >&2; kill -CONT $!; kill -$signal $!; wait $!`, "sh", signal, path}, args...)...)
	out, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(s, err)
	defer out.Close()
	must(s, out.Chown(int(s.as.Uid), int(s.as.Gid))) // a server may open it itself
	number, theirs, err := os.Pipe()
	must(s, err)
	defer number.Close()
	c.Stdout, c.Stderr, c.ExtraFiles = out, out, []*os.File{theirs}
	in, err := c.StdinPipe()
	must(s, err)
	err = c.Start()
	theirs.Close()
	must(s, err)
	s.Stop = sync.OnceFunc(func() {
		in.Close()
		_ = c.Wait()
		s.pid = 0
	})
	s.Cleanup(s.Stop)
	_, err = fmt.Fscan(number, &s.pid)
	must(s, err)
}

func (s *server) log() string { return s.Dir + "/log" }

// wait waits until the server answers. What it may say when it never will is
// given.
func (s *server) wait(answers func() error, never ...string) {
	s.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := answers()
		if err == nil {
			return
		}
		said, _ := os.ReadFile(s.log())
		if time.Now().After(end) || slices.ContainsFunc(never, func(n string) bool { return bytes.Contains(said, []byte(n)) }) {
			s.Fatalf("the server does not start: %v: %s", err, said)
		}
	}
}

// Said is what the server has said, to its log.
func (s *server) Said() string {
	b, _ := os.ReadFile(s.log())
	return string(b)
}

// Process is the server's; 0 when it was stopped.
func (s *server) Process() int { return s.pid }

// Pause stops all processes of a server until the function returned has been
// called, so that its files show one instant.
func (s *server) Pause() (resume func()) {
	s.Helper()
	all := []int{s.pid}
	for known := 0; known < len(all); { // until no more are born
		known = len(all)
		for _, p := range all {
			if err := syscall.Kill(p, syscall.SIGSTOP); err != syscall.ESRCH { // it has ended meanwhile
				must(s, err)
			}
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.pid, s.pid))
		must(s, err)
		for _, f := range strings.Fields(string(b)) {
			if pid, _ := strconv.Atoi(f); !slices.Contains(all, pid) {
				all = append(all, pid)
			}
		}
	}
	for _, p := range all {
		for b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p)); err == nil && !bytes.Contains(b, []byte(") T ")) && !bytes.Contains(b, []byte(") Z ")); {
			time.Sleep(time.Millisecond)
			b, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		}
	}
	resume = sync.OnceFunc(func() {
		for _, p := range all {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
	})
	s.Cleanup(resume)
	return resume
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
