package redis

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/writer"
)

const long = 20 * time.Second // in which something must have happened

// A server that wants a password is found and described without it.
func TestPassword(t *testing.T) {
	s := start(t)
	s.Do("CONFIG", "SET", "requirepass", "secret")
	for _, c := range []struct {
		login Login
		code  problem.Code
	}{
		{Login{}, problem.WriterPassword},
		{Login{Password: "wrong"}, problem.WriterPassword},
		{Login{Username: "nobody", Password: "secret"}, problem.WriterPassword},
		{Login{Address: "/elsewhere", Password: "secret"}, problem.WriterPassword},
		{Login{Password: "secret"}, ""},
		{Login{Username: "default", Password: "secret"}, ""},
		{Login{Address: s.Socket(), Password: "secret"}, ""},
	} {
		in := s.instance(Options{Logins: []Login{c.login}})
		if a := in.About(); len(a.Paths) != 1 || a.Paths[0] != s.Data || (a.Version == "") != (c.code != "") {
			t.Errorf("%+v: %+v", c.login, a)
		}
		wants(t, c.code, in.Check(s.within(long)))
		session, err := in.Prepare(s.within(long), writer.Need{Window: time.Minute})
		wants(t, c.code, err)
		if err == nil {
			_, err = session.Thaw(s.within(long))
			must(t, err)
		}
	}
}

// A missing right is found before anything is asked for.
func TestRights(t *testing.T) {
	s := start(t, "--save", "3600 1")
	for rules, code := range map[string]problem.Code{
		"+info +client +bgsave +config|get +ping": "",
		"+info +client +bgsave":                   "",
		"+info +client +config|get":               problem.WriterRights,
		"+info +bgsave +client|unpause":           problem.WriterRights,
		"+client +bgsave +config|get":             problem.WriterRights,
	} {
		args := []any{"SETUSER", "backup", "reset", "on", ">secret", "~*"}
		for _, r := range strings.Fields(rules) {
			args = append(args, r)
		}
		s.Do("ACL", args...)
		in := s.instance(Options{Logins: []Login{{Username: "backup", Password: "secret"}}})
		t.Log(rules)
		wants(t, code, in.Check(s.within(long)))
		if code == "" { // and these rights are enough
			s.goesOn(long)
			rests(s, in, writer.Need{Window: time.Minute})
		}
	}
	s.Stop()
	wants(t, problem.WriterGone, s.gone().Check(s.within(long)))
}

// gone is the instance of a server that has ended, and was told of.
func (s *server) gone() writer.Instance {
	return s.instance(Options{Logins: []Login{{Address: s.Socket()}}})
}

// rests brings an instance to rest and lets it go on.
func rests(s *server, in writer.Instance, n writer.Need) {
	s.Helper()
	session, err := in.Prepare(s.within(long), n)
	must(s, err)
	must(s, session.Freeze(s.within(long)))
	_, err = session.Thaw(s.within(long))
	must(s, err)
	s.goesOn(long)
}

// Commands that have another name, and a server without connections left.
func TestRefused(t *testing.T) {
	s := start(t, "--rename-command", "CLIENT", "")
	wants(t, problem.WriterRights, s.instance(Options{}).Check(s.within(long)))

	s = start(t, "--maxclients", "2")
	session := s.prepare(Options{}, writer.Need{Window: time.Minute}) // both
	wants(t, problem.WriterResources, s.instance(Options{}).Check(s.within(long)))
	_, err := session.Thaw(s.within(long))
	must(t, err)
}

// A script that does not end, and data that is still being loaded.
func TestBusy(t *testing.T) {
	s := start(t, "--lua-time-limit", "50", "--save", "3600 1")
	in := s.instance(Options{})
	rc, err := redis.Dial("unix", s.Socket())
	must(t, err)
	defer rc.Close()
	must(t, rc.Send("EVAL", "while true do end", 0))
	must(t, rc.Flush())
	waitFor(t, "the script counts as slow", func() bool {
		err = in.Check(s.within(long))
		return problem.CodeOf(err) == problem.WriterBusy
	})
	_, err = in.Prepare(s.within(long), writer.Need{Window: time.Minute})
	wants(t, problem.WriterBusy, err)
	s.Do("SCRIPT", "KILL") // which is answered before the script has ended
	waitFor(t, "the script ends", func() bool { return in.Check(s.within(long)) == nil })

	for range 2000 {
		s.Do("RPUSH", "list", "x")
		s.Do("INCR", "key:"+time.Now().String())
	}
	s.Do("SAVE")
	s.Stop()
	s = startIn(t, s.Data, "--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
	wants(t, problem.WriterRetryable, s.instance(Options{}).Check(s.within(long)))
}

// Who is saved for longer than clients may wait is let go on; and an
// append-only file that is being written anew is waited for.
func TestSlow(t *testing.T) {
	s := start(t, "--save", "3600 1", "--rdb-key-save-delay", "50000")
	for i := range 300 {
		s.Do("SET", i, "x")
	}
	session := s.prepare(Options{Save: 300 * time.Millisecond}, writer.Need{Window: time.Minute})
	began := time.Now()
	wants(t, problem.WriterTimeout, session.Freeze(s.within(long)))
	s.goesOn(long)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("changes waited for %v", took)
	}
	_, err := session.Thaw(s.within(long))
	must(t, err)
	_, err = s.instance(Options{}).Prepare(s.within(2*time.Second), writer.Need{Window: time.Minute})
	wants(t, problem.WriterBusy, err) // that save is still under way
	s.Do("CONFIG", "SET", "rdb-key-save-delay", 0)
	s.endChildren()
	waitFor(t, "the save ends", func() bool { return s.info("persistence", "rdb_bgsave_in_progress") == "0" })

	s.Do("CONFIG", "SET", "appendonly", "yes")
	waitFor(t, "the file is appended to", func() bool { return s.info("persistence", "aof_rewrite_in_progress") == "0" })
	session = s.prepare(Options{}, writer.Need{Window: time.Minute})
	s.Do("CONFIG", "SET", "rdb-key-save-delay", 50000)
	s.Do("BGREWRITEAOF")
	wants(t, problem.WriterBusy, session.Freeze(s.within(long)))
	s.goesOn(long)
	_, err = session.Thaw(s.within(long))
	must(t, err)
	s.endChildren()
}

// endChildren ends those that write a file for the server, in the way that it
// takes for no failure.
func (s *server) endChildren() {
	s.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.Process(), s.Process()))
	must(s, err)
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		must(s, err)
		must(s, syscall.Kill(pid, syscall.SIGUSR1))
	}
}

// Disk full: a server that could not save would refuse changes from then on,
// and so is not asked to.
func TestFull(t *testing.T) {
	v := scratch.New(t, "ext4", 32*scratch.MiB)
	must(t, os.Chmod(v.Dir, 0o755))
	must(t, os.Chmod(filepath.Dir(v.Dir), 0o711)) // the way to it
	for _, c := range []struct {
		name string
		args []string
	}{{"rdb", []string{"--save", "3600 1"}}, {"aof", []string{"--appendonly", "yes"}}} {
		t.Run(c.name, func(t *testing.T) {
			dir := v.Dir + "/" + c.name
			must(t, os.Mkdir(dir, 0o755))
			s := startIn(t, dir, c.args...)
			s.Do("SET", "large", string(make([]byte, 1<<20)))
			session := s.prepare(Options{}, writer.Need{Window: time.Minute})
			fill(t, v.Dir+"/fill")
			defer os.Remove(v.Dir + "/fill")
			if c.name == "rdb" {
				wants(t, problem.WriterResources, session.Freeze(s.within(long)))
				s.goesOn(long)
				_, err := session.Thaw(s.within(long))
				must(t, err)
				return
			}
			rc, err := redis.Dial("unix", s.Socket())
			must(t, err)
			defer rc.Close()
			_, _ = rc.Do("SET", "more", string(make([]byte, 4<<20)))
			waitFor(t, "the server cannot write", func() bool { return s.info("persistence", "aof_last_write_status") == "err" })
			wants(t, problem.WriterResources, session.Freeze(s.within(long)))
			_, err = session.Thaw(s.within(long))
			must(t, err)
			_, err = s.instance(Options{}).Prepare(s.within(long), writer.Need{Window: time.Minute})
			wants(t, problem.WriterResources, err)
		})
	}
}

// fill leaves no room on a volume, for nobody but root.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	var st syscall.Statfs_t
	must(t, syscall.Fstatfs(int(f.Fd()), &st))
	must(t, syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize))
	must(t, syscall.Fstatfs(int(f.Fd()), &st))
	if st.Bavail > 1024 {
		t.Fatalf("%d blocks are free", st.Bavail)
	}
}

// A pause that was not renewed in time is not trusted.
func TestLate(t *testing.T) {
	s := start(t)
	session := s.prepare(Options{}, writer.Need{Window: time.Minute})
	must(t, session.Freeze(s.within(long)))
	must(t, syscall.Kill(s.Process(), syscall.SIGSTOP))
	time.Sleep(length + 2*again) // what must be too late
	must(t, syscall.Kill(s.Process(), syscall.SIGCONT))
	s.goesOn(long)
	_, err := session.Thaw(s.within(long))
	wants(t, problem.WriterTimeout, err)
}

// Thaw ends the pause, and so does a Freeze that fails: nobody waits for the end
// of a second.
func TestEnded(t *testing.T) {
	s := start(t, "--save", "3600 1")
	in := s.instance(Options{}).(*instance)
	in.length = 10 * time.Minute
	for _, save := range []time.Duration{time.Minute, time.Nanosecond} {
		in.save = save
		s.goesOn(long) // or there is nothing to save
		session, err := in.Prepare(s.within(long), writer.Need{Window: time.Hour})
		must(t, err)
		err = session.Freeze(s.within(long))
		if (err == nil) != (save > 1) {
			t.Fatalf("with %v to save: %v", save, err)
		}
		if err == nil {
			_, err = session.Thaw(s.within(long))
			must(t, err)
		}
		s.goesOn(long)
		_, _ = session.Thaw(s.within(long))
	}
}

// The pause lasts longer than one question asks for.
func TestRenewed(t *testing.T) {
	s := start(t)
	session := s.prepare(Options{}, writer.Need{Window: time.Minute})
	must(t, session.Freeze(s.within(long)))
	ctx, cancel := context.WithTimeout(t.Context(), 2*length+length/2)
	defer cancel()
	if err := s.Write(ctx); !timeout(err) {
		t.Errorf("a change was made while the server was at rest, or refused: %v", err)
	}
	_, err := session.Thaw(s.within(long))
	must(t, err)
	s.goesOn(long)
}

// listen lets the server listen on a port that is free.
func (s *server) listen() (port string) {
	s.Helper()
	rc, err := redis.Dial("unix", s.Socket())
	must(s, err)
	defer rc.Close()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(s, err)
		_, port, _ = net.SplitHostPort(l.Addr().String())
		must(s, l.Close()) // somebody else may take it now
		if _, err = rc.Do("CONFIG", "SET", "port", port); err == nil {
			return port
		}
	}
	s.Fatal("no port is free")
	return ""
}

// One on a port is found by it, and one that only watches others is not.
func TestFound(t *testing.T) {
	s := start(t)
	port := s.listen()
	all, err := New(Options{Logins: []Login{{Address: "127.0.0.1:" + port}}}).Discover(s.within(long), writer.Scope{})
	must(t, err)
	found := 0
	for _, in := range all {
		if a := in.About(); a.ID == "redis:127.0.0.1:"+port {
			found++
			must(t, in.Check(s.within(long)))
			if len(a.Paths) != 1 || a.Paths[0] != s.Data {
				t.Errorf("%+v", a)
			}
		} else if a.ID == s.ID() {
			t.Error("it is found twice")
		}
	}
	if found != 1 {
		t.Errorf("it is found %d times", found)
	}

	dir := t.TempDir()
	conf := dir + "/sentinel.conf"
	must(t, os.WriteFile(conf, nil, 0o644))
	watching := startProgram(t, dir, conf, "--sentinel")
	all, err = New(Options{}).Discover(s.within(long), writer.Scope{})
	must(t, err)
	for _, in := range all {
		if in.About().ID == watching.ID() {
			t.Error("a sentinel is taken for a server with data")
		}
	}
}
