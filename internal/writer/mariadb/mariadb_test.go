package mariadb

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/writertest"
)

func TestWriter(t *testing.T) {
	writertest.Run(t, writertest.Host{
		New:      func(testing.TB) writer.Writer { return New(Options{}) },
		Start:    func(t testing.TB) writertest.App { return start(t) },
		Suspends: true,
	})
}

// A server is found, with all places that hold its data, and one with several
// is not copied at several instants; what is left of one that ended is not
// found.
func TestDiscover(t *testing.T) {
	s := &mariadbd{servertest.NewMariaDB(t)}
	other := s.Owned("my-")
	for _, d := range []string{"log", "table", "linked"} {
		s.Run("/bin/mkdir", other+"/"+d)
	}
	s.Args = []string{"--log-bin=" + other + "/log/bin"}
	s.begin()
	s.Must("CREATE TABLE d.apart (a INT) ENGINE=InnoDB DATA DIRECTORY='" + other + "/table'")
	s.Run("/bin/ln", "-s", other+"/linked", s.Dir+"/data/linked")
	in := s.instance(Options{})
	about := in.About()
	paths := slices.Sorted(slices.Values(about.Paths[1:]))
	if want := []string{other + "/linked", other + "/log", other + "/table/d"}; about.Paths[0] != s.Dir+"/data" || !slices.Equal(paths, want) {
		t.Errorf("paths %q", about.Paths)
	}
	var version string
	must(t, s.DB.QueryRow("SELECT VERSION()").Scan(&version))
	if about.Version == "" || !strings.HasPrefix(version, about.Version) {
		t.Errorf("version %q, want %q", about.Version, version)
	}
	_, err := in.Prepare(s.soon(), writer.Need{Window: time.Minute})
	want(t, err, problem.WriterFailed, writer.NotRetryable)
	p, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
	must(t, err)
	must(t, p.Freeze(s.soon()))
	_, err = p.Thaw(s.soon())
	must(t, err)
	s.Stop()
	if _, err := os.Stat(s.Socket()); err != nil {
		t.Errorf("no socket is left: %v", err)
	}
	all, err := New(Options{Sockets: []string{s.Socket()}}).Discover(s.soon(), writer.Scope{})
	must(t, err)
	for _, in := range all {
		if in.About().ID == s.ID() {
			t.Error("what is left of a server is found")
		}
	}
}

func TestWays(t *testing.T) {
	for version, want := range map[string][]string{
		"10.11.19-MariaDB-0+deb12u1": stages.freeze, "11.4.2-MariaDB": stages.freeze, "10.4.1-MariaDB-log": stages.freeze,
		"8.0.36": locks.freeze, "9.1.0-commercial": locks.freeze, "8.4": locks.freeze,
		"10.3.39-MariaDB": nil, "5.7.44-log": nil, "": nil,
	} {
		w, err := wayOf(version)
		if !slices.Equal(w.freeze, want) || (want == nil) != (problem.CodeOf(err) == problem.WriterFailed) {
			t.Errorf("%q: %q, %v", version, w.freeze, err)
		}
	}
	for grants, want := range map[string]string{
		"GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION":                        "",
		"GRANT RELOAD, PROCESS ON *.* TO `a`@`%`\nGRANT BACKUP_ADMIN,BINLOG_ADMIN ON *.* TO `a`@`%`": "",
		"GRANT RELOAD, PROCESS ON *.* TO `a`@`%`":                                                    "BACKUP_ADMIN",
		"GRANT ALL PRIVILEGES ON `d`.* TO `a`@`%`":                                                   "RELOAD",
		"": "RELOAD",
	} {
		if got := locks.lacks(strings.Split(grants, "\n")); got != want {
			t.Errorf("%q lacks %q, want %q", grants, got, want)
		}
	}
}

// Who is called like a server, and lets the path of his socket lead to one, is
// not taken for it, and does not hide where its data is.
func TestImpostor(t *testing.T) {
	s := &mariadbd{servertest.NewMariaDB(t)}
	dir := t.TempDir()
	must(t, exec.Command("cp", os.Args[0], dir+"/mariadbd").Run())
	must(t, os.Mkdir(dir+"/run", 0o755))
	path := dir + "/run/" + filepath.Base(s.Socket())
	p := exec.Command(dir+"/mariadbd", "-test.run=^TestListen$")
	p.Env = append(os.Environ(), "STILLPOINT_TEST_LISTEN="+path)
	p.Dir = dir
	in, err := p.StdinPipe()
	must(t, err)
	out, err := p.StdoutPipe()
	must(t, err)
	must(t, p.Start())
	defer func() { in.Close(); _, _ = io.Copy(io.Discard, out); _ = p.Wait() }()
	var word string
	_, err = fmt.Fscan(out, &word)
	must(t, err)
	s.begin() // later, so that it is not found first
	found := func() (all []server) {
		t.Helper()
		list, err := (&mariadb{}).servers()
		must(t, err)
		for _, f := range list {
			if f.socket == s.Socket() || f.pid == p.Process.Pid {
				all = append(all, f)
			}
		}
		return all
	}
	if all := found(); len(all) != 2 {
		t.Errorf("before: %+v", all)
	}
	must(t, os.Rename(dir+"/run", dir+"/hidden"))
	must(t, os.Symlink(filepath.Dir(s.Socket()), dir+"/run"))
	if all := found(); len(all) != 1 || all[0].data != s.Dir+"/data" || all[0].contained {
		t.Errorf("found %+v", all)
	}
}

// TestListen is the program of TestImpostor.
func TestListen(t *testing.T) {
	path := os.Getenv("STILLPOINT_TEST_LISTEN")
	if path == "" {
		return
	}
	l, err := net.Listen("unix", path)
	must(t, err)
	defer l.Close()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}
