package sqlite

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// What is copied at rest has no hot journal, is whole, and has exactly the
// transactions that were acknowledged.
func TestRestore(t *testing.T) {
	for _, mode := range []string{"delete", "truncate", "persist", "wal"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			d := create(t, t.TempDir()+"/app.db", mode)
			done := load(t, d, 3)
			for range 5 {
				from := done.Load()
				waitFor(t, "transactions", func() bool { return done.Load() > from+5 })
				s := d.prepare(Options{Wait: long})
				d.freeze(s)
				copied := &database{t, t.TempDir() + "/app.db"}
				for _, beside := range []string{"", "-wal", "-journal"} {
					b, err := os.ReadFile(d.path + beside)
					if err == nil {
						must(t, os.WriteFile(copied.path+beside, b, 0o600))
					}
					// A journal that is to be rolled back begins with its magic.
					if beside == "-journal" && bytes.HasPrefix(b, []byte{0xd9, 0xd5, 0x05, 0xf9}) {
						t.Errorf("there is a hot journal of %d bytes", len(b))
					}
				}
				want := d.do("SELECT count(*) FROM changes")
				d.thaw(s)
				if got := copied.do("PRAGMA integrity_check; SELECT count(*) FROM changes"); got != "ok\n"+want {
					t.Errorf("%q, want %s", got, want)
				}
				if n, err := strconv.ParseInt(want, 10, 64); err != nil || n%batch != 0 {
					t.Errorf("%s is half a transaction", want)
				}
			}
		})
	}
}

const batch = 20 // of rows, in one transaction

// load lets clients write, and counts what was acknowledged.
func load(t *testing.T, d *database, clients int) *atomic.Int64 {
	var done atomic.Int64
	insert := "BEGIN IMMEDIATE;" + strings.Repeat(" INSERT INTO changes VALUES (1, random());", batch) + " COMMIT;"
	for range clients {
		c := connect(d)
		c.ask("PRAGMA synchronous=OFF;")
		stop, stopped := make(chan struct{}), make(chan struct{})
		t.Cleanup(func() { close(stop); <-stopped }) // before the client is ended
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if answer, err := c.try(insert); err != nil || answer != "" {
					t.Errorf("%q, %v", answer, err)
					return
				}
				done.Add(1)
			}
		}()
	}
	return &done
}

// A client is a program of SQLite's that has the database open. It is a process
// of its own: when this one closes any file of a database, its locks are gone.
type client struct {
	*database
	process *os.Process
	in      io.Writer
	out     *bufio.Scanner
}

func connect(d *database) *client {
	d.Helper()
	p := exec.Command("sqlite3", "-batch", "-cmd", ".timeout 60000", d.path)
	in, err := p.StdinPipe()
	must(d, err)
	out, err := p.StdoutPipe()
	must(d, err)
	p.Stderr = p.Stdout
	must(d, p.Start())
	d.Cleanup(func() { in.Close(); _ = p.Wait() })
	return &client{d, p.Process, in, bufio.NewScanner(out)}
}

// try returns what is answered to a statement.
func (c *client) try(sql string) (answer string, err error) {
	if _, err := io.WriteString(c.in, sql+"\n.print end\n"); err != nil {
		return "", err
	}
	for c.out.Scan() {
		if c.out.Text() == "end" {
			return answer, nil
		}
		answer += c.out.Text()
	}
	return answer, io.ErrUnexpectedEOF
}

func (c *client) ask(sql string) string {
	c.Helper()
	answer, err := c.try(sql)
	must(c, err)
	return answer
}

// A rest leaves no trace: not in the file, not beside it.
func TestUnchanged(t *testing.T) {
	for _, mode := range []string{"delete", "wal"} {
		d := create(t, t.TempDir()+"/app.db", mode)
		must(t, d.Write(d.within(long)))
		const owner, group = 1234, 2345
		must(t, os.Chown(d.path, owner, group))
		must(t, os.Chown(filepath.Dir(d.path), owner, group))
		must(t, os.Chmod(d.path, 0o640))
		before := state(t, d.path)
		s := d.prepare(Options{})
		d.freeze(s)
		for _, beside := range []string{"-wal", "-shm"} {
			var st syscall.Stat_t
			err := syscall.Stat(d.path+beside, &st)
			if (err == nil) != (mode == "wal") || err == nil && (st.Uid != owner || st.Gid != group || st.Mode&0o777 != 0o640) {
				t.Errorf("%s: %s: owner %d:%d, mode %o: %v", mode, beside, st.Uid, st.Gid, st.Mode, err)
			}
		}
		d.thaw(s)
		waitFor(t, "it is closed", func() bool {
			names, err := filepath.Glob(d.path + "*")
			return err == nil && len(names) == 1
		})
		if after := state(t, d.path); after != before {
			t.Errorf("%s: before %s, after %s", mode, before, after)
		}
	}
}

func state(t *testing.T, path string) string {
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	b, err := os.ReadFile(path)
	must(t, err)
	return fmt.Sprint(st.Mtim, st.Ctim, st.Size, st.Uid, len(b), strings.Count(string(b), "\x00"))
}

// A lock that somebody holds is waited for, and not long.
func TestBusy(t *testing.T) {
	for _, mode := range []string{"delete", "wal"} {
		d := create(t, t.TempDir()+"/app.db", mode)
		c := connect(d)
		if answer := c.ask("BEGIN IMMEDIATE; INSERT INTO changes VALUES (2, 2);"); answer != "" {
			t.Fatal(answer)
		}
		s := d.prepare(Options{Wait: 200 * time.Millisecond})
		began := time.Now()
		wants(t, problem.WriterBusy, s.Freeze(d.within(long)))
		if took := time.Since(began); took < 200*time.Millisecond || took > 5*time.Second {
			t.Errorf("it was waited for for %v", took)
		}
		d.thaw(s)

		s = d.prepare(Options{Wait: long})
		frozen := make(chan error, 1)
		go func() { frozen <- s.Freeze(d.within(long)) }()
		time.Sleep(100 * time.Millisecond)
		if answer := c.ask("COMMIT;"); answer != "" {
			t.Error(answer)
		}
		must(t, <-frozen)
		d.thaw(s)
	}
}

// Many databases rest at once, in one helper process, which ends with the last.
func TestMany(t *testing.T) {
	dir := t.TempDir()
	first := create(t, dir+"/0.db", "delete")
	content, err := os.ReadFile(first.path)
	must(t, err)
	for i := range 300 {
		must(t, os.WriteFile(dir+"/"+strconv.Itoa(i)+".db", content, 0o644))
	}
	before := helpers(t) // which may be ending
	w := New(Options{})
	all, err := w.Discover(t.Context(), first.Scope())
	must(t, err)
	if len(all) != 300 {
		t.Fatalf("%d are found", len(all))
	}
	sessions := make([]writer.Session, len(all))
	began := time.Now()
	each := func(what string, f func(i int) error) {
		var wait sync.WaitGroup
		for i := range all {
			wait.Go(func() {
				if err := f(i); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}
	ctx := first.within(time.Minute)
	each("prepare", func(i int) (err error) {
		sessions[i], err = all[i].Prepare(ctx, writer.Need{Window: time.Minute})
		return err
	})
	if t.Failed() {
		return
	}
	helper := w.aide
	each("freeze", func(i int) error { return sessions[i].Freeze(ctx) })
	if more := slices.DeleteFunc(helpers(t), func(pid int) bool { return slices.Contains(before, pid) }); len(more) != 1 {
		t.Errorf("there are %d helper processes", len(more))
	}
	each("thaw", func(i int) error { _, err := sessions[i].Thaw(ctx); return err })
	select {
	case <-helper.Gone():
	case <-time.After(long):
		t.Error("the helper process is still there")
	}
}

// helpers are the helper processes that are children of this one.
func helpers(t testing.TB) (pids []int) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(f)
			if b, _ := os.ReadFile("/proc/" + f + "/cmdline"); strings.TrimRight(string(b), "\x00") == program {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Without the helper process there is no lock, and that is not hidden.
func TestHelperKilled(t *testing.T) {
	d := create(t, t.TempDir()+"/app.db", "delete")
	in := d.instance(Options{})
	s, err := in.Prepare(d.within(long), writer.Need{Window: time.Minute})
	must(t, err)
	d.freeze(s)
	for _, pid := range helpers(t) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != syscall.ESRCH { // one of a test before
			must(t, err)
		}
	}
	must(t, d.Write(d.within(long)))
	_, err = s.Thaw(d.within(long))
	wants(t, problem.WriterRetryable, err)
	s, err = in.Prepare(d.within(long), writer.Need{Window: time.Minute}) // by another one
	must(t, err)
	d.freeze(s)
	d.thaw(s)
}

// A journal that a killed program has left is rolled back, as the next program
// would do.
func TestHotJournal(t *testing.T) {
	d := create(t, t.TempDir()+"/app.db", "delete")
	must(t, d.Write(d.within(long)))
	c := connect(d)
	c.ask("PRAGMA cache_size=1; PRAGMA cache_spill=1; BEGIN;" + strings.Repeat(" INSERT INTO changes VALUES (3, hex(randomblob(1000)));", 100))
	must(t, c.process.Kill())
	waitFor(t, "it has gone", func() bool { return !c.out.Scan() })
	if st, err := os.Stat(d.path + "-journal"); err != nil || st.Size() == 0 {
		t.Fatalf("no journal is left: %v", err)
	}
	s := d.prepare(Options{})
	d.freeze(s)
	if _, err := os.Stat(d.path + "-journal"); !os.IsNotExist(err) {
		t.Errorf("the journal is still there: %v", err)
	}
	d.thaw(s)
	if n := d.do("SELECT count(*) FROM changes"); n != "1" {
		t.Errorf("%s rows are left", n)
	}
}

// A database is opened with the rights of its owner alone: who is root must not
// believe what others can put beside it.
func TestOwner(t *testing.T) {
	const user, other = 1234, 1235
	for what, c := range map[string]struct {
		file, dir int
		mode      os.FileMode
		code      problem.Code
	}{
		"root's":                    {0, 0, 0o755, ""},
		"a user's own":              {user, user, 0o755, ""},
		"for which no file is made": {user, 0, 0o755, problem.WriterRights},
		"in another's folder":       {user, other, 0o777, problem.WriterRights},
		"root's, in a user's":       {0, user, 0o755, problem.WriterRights},
		"root's, in an open one":    {0, 0, 0o777 | os.ModeSticky, problem.WriterRights},
		"in an open one":            {user, 0, 0o777 | os.ModeSticky, ""},
	} {
		t.Run(what, func(t *testing.T) {
			d := create(t, t.TempDir()+"/app.db", "wal")
			must(t, os.Chown(d.path, c.file, c.file))
			must(t, os.Chown(filepath.Dir(d.path), c.dir, c.dir))
			must(t, os.Chmod(filepath.Dir(d.path), c.mode))
			s, err := d.instance(Options{}).Prepare(d.within(long), writer.Need{Window: time.Minute})
			wants(t, c.code, err)
			if err == nil {
				d.freeze(s)
				d.thaw(s)
			}
		})
	}
}
