package script

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/writertest"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

const long = 20 * time.Second // in which something must have happened

// An application that waits while a folder is there, which a script makes.
func TestWriter(t *testing.T) {
	writertest.Run(t, writertest.Host{
		New: func(testing.TB) writer.Writer { return located{New(Options{})} },
		Start: func(tb testing.TB) writertest.App {
			d := newDir(tb)
			d.write("10-app", fmt.Sprintf("case $1 in freeze) mkdir %[1]s;; thaw) rm -rf %[1]s;; esac", d.state))
			d.write("20-slow", "sleep 0.001")
			return d
		},
		Suspends: true,
	})
}

// A located writer has the directory that it is asked for.
type located struct{ *Writer }

func (located) Discover(ctx context.Context, s writer.Scope) ([]writer.Instance, error) {
	return New(Options{Dir: s.Paths[0], Paths: []string{filepath.Dir(s.Paths[0])}}).Discover(ctx, s)
}

// A dir has scripts, and a log to which they write.
type dir struct {
	testing.TB
	path, state, log string
}

func newDir(t testing.TB) *dir {
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	d := &dir{t, base + "/freeze.d", base + "/frozen", base + "/log"}
	must(t, os.Mkdir(d.path, 0o755))
	return d
}

// write writes a script.
func (d *dir) write(name, text string) {
	must(d, os.WriteFile(filepath.Join(d.path, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
}

// logs writes a script that logs what it is called with, and then does
// something.
func (d *dir) logs(name, text string) {
	d.write(name, fmt.Sprintf("echo %s $1 >>%s\n%s", name, d.log, text))
}

// logged fails unless the scripts were called so.
func (d *dir) logged(want ...string) {
	d.Helper()
	b, err := os.ReadFile(d.log)
	if err != nil && !os.IsNotExist(err) {
		d.Fatal(err)
	}
	if got := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' }); !slices.Equal(got, want) {
		d.Errorf("called were %q, want %q", got, want)
	}
	_ = os.Remove(d.log)
}

func (d *dir) ID() string          { return "script:" + d.path }
func (d *dir) Scope() writer.Scope { return writer.Scope{Paths: []string{d.path}} }
func (d *dir) Process() int        { return 0 }

func (d *dir) Write(ctx context.Context) error {
	for {
		if _, err := os.Stat(d.state); os.IsNotExist(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (d *dir) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	d.Cleanup(cancel)
	return ctx
}

func (d *dir) instance(o Options) writer.Instance {
	d.Helper()
	o.Dir = d.path
	all, err := New(o).Discover(d.within(long), d.Scope())
	must(d, err)
	if len(all) != 1 || all[0].About().ID != d.ID() {
		d.Fatalf("%d instances", len(all))
	}
	return all[0]
}

func (d *dir) prepare(o Options) writer.Session {
	d.Helper()
	s, err := d.instance(o).Prepare(d.within(long), writer.Need{Window: time.Minute})
	must(d, err)
	return s
}

func (d *dir) freeze(s writer.Session) error { return s.Freeze(d.within(long)) }

func (d *dir) thaw(s writer.Session) error {
	_, err := s.Thaw(d.within(long))
	return err
}

// wants fails unless an error has the code, and says all of that.
func wants(t testing.TB, err error, code problem.Code, words ...string) {
	t.Helper()
	if problem.CodeOf(err) != code {
		t.Errorf("want %q, got %q: %v", code, problem.CodeOf(err), err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in %q", w, err)
		}
	}
	t.Log(err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// All are called in their order, and with thaw in the other.
func TestOrder(t *testing.T) {
	d := newDir(t)
	for _, name := range []string{"c", "a", "b"} {
		d.logs(name, "")
	}
	d.logs("d.dpkg-old", "")
	must(t, os.WriteFile(d.path+"/README", []byte("not executable"), 0o644))
	s := d.prepare(Options{})
	d.logged()
	must(t, d.freeze(s))
	d.logged("a freeze", "b freeze", "c freeze")
	must(t, d.thaw(s))
	d.logged("c thaw", "b thaw", "a thaw")
	must(t, d.thaw(d.prepare(Options{})))
	d.logged()
}

// One that fails is called with thaw like those before it, those behind it are
// not called at all, and what it printed is shown.
func TestFreezeFails(t *testing.T) {
	for freezeFail, word := range map[bool]string{false: "thaw", true: "freezeFail"} {
		d := newDir(t)
		d.logs("a", "")
		d.logs("b", "[ $1 != freeze ] || { echo to output; echo to error >&2; exit 3; }")
		d.logs("c", "")
		s := d.prepare(Options{FreezeFail: freezeFail})
		wants(t, d.freeze(s), problem.WriterFailed, "b: freeze: exit status 3", "to output", "to error")
		d.logged("a freeze", "b freeze", "b "+word, "a "+word)
		must(t, d.thaw(s))
		d.logged()
	}
}

// One that does not end is killed, with all that it started.
func TestHangs(t *testing.T) {
	const short = 2 * time.Second // in which those that do not hang have begun and ended
	d := newDir(t)
	d.logs("a", "")
	d.logs("b", "[ $1 != freeze ] || sleep 1000")
	s := d.prepare(Options{Limit: short})
	began := time.Now()
	wants(t, d.freeze(s), problem.WriterTimeout, "b: freeze: it took longer than 2s")
	must(t, d.thaw(s))
	d.logged("a freeze", "b freeze", "b thaw", "a thaw")

	// Also when nobody waits for it any more, and when the window is over.
	s = d.prepare(Options{})
	wants(t, s.Freeze(d.within(short)), problem.WriterTimeout)
	d.logged("a freeze", "b freeze", "b thaw", "a thaw")
	must(t, d.thaw(s))
	s, err := d.instance(Options{}).Prepare(d.within(long), writer.Need{Window: short})
	must(t, err)
	wants(t, d.freeze(s), problem.WindowClosed)
	d.logged("a freeze", "b freeze", "b thaw", "a thaw")
	wants(t, d.thaw(s), problem.WindowClosed)
	d.logged()
	if took := time.Since(began); took > long {
		t.Errorf("it took %v", took)
	}
}

// A thaw that fails or hangs keeps no other from being called, and is told.
func TestThawFails(t *testing.T) {
	d := newDir(t)
	d.logs("a", "")
	d.logs("b", "[ $1 != thaw ] || { echo no; exit 1; }")
	d.logs("c", "[ $1 != thaw ] || sleep 1000")
	s := d.prepare(Options{Limit: time.Second})
	must(t, d.freeze(s))
	err := d.thaw(s)
	wants(t, err, problem.WriterTimeout, "c: thaw: it took longer", "b: thaw: exit status 1: no")
	d.logged("a freeze", "b freeze", "c freeze", "c thaw", "b thaw", "a thaw")
}

// When the helper is killed we call the scripts ourselves, and say so.
func TestHelperKilled(t *testing.T) {
	d := newDir(t)
	d.logs("a", "")
	d.logs("b", "")
	s := d.prepare(Options{})
	must(t, d.freeze(s))
	lists, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	killed := 0
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(b)) {
			if b, _ := os.ReadFile("/proc/" + f + "/cmdline"); strings.TrimRight(string(b), "\x00") == program {
				pid, err := strconv.Atoi(f)
				must(t, err)
				if err := syscall.Kill(pid, syscall.SIGKILL); err != syscall.ESRCH { // one of a test before
					must(t, err)
					killed++
				}
			}
		}
	}
	if killed == 0 {
		t.Fatal("there is no helper process")
	}
	wants(t, d.thaw(s), problem.WriterRetryable)
	d.logged("a freeze", "b freeze", "b thaw", "a thaw")
}

// What others than root could have written is not run, nor is anything beside
// it.
func TestUnsafe(t *testing.T) {
	for what, spoil := range map[string]func(d *dir) error{
		"another's script": func(d *dir) error { return os.Chown(d.path+"/a", 1234, 0) },
		"open script":      func(d *dir) error { return os.Chmod(d.path+"/a", 0o777) },
		"group's script":   func(d *dir) error { return os.Chmod(d.path+"/a", 0o775) },
		"link":             func(d *dir) error { return os.Symlink("/bin/true", d.path+"/b") },
		"another's dir":    func(d *dir) error { return os.Chown(d.path, 1234, 0) },
		"open dir":         func(d *dir) error { return os.Chmod(d.path, 0o777) },
	} {
		t.Run(what, func(t *testing.T) {
			d := newDir(t)
			d.logs("a", "")
			in := d.instance(Options{})
			must(t, in.Check(t.Context()))
			must(t, spoil(d))
			wants(t, d.instance(Options{}).Check(t.Context()), problem.WriterRights)
			_, err := in.Prepare(t.Context(), writer.Need{Window: time.Minute})
			wants(t, err, problem.WriterRights)
			d.logged()
		})
	}
}

// Where there are no scripts there is no instance.
func TestNone(t *testing.T) {
	d := newDir(t)
	for _, path := range []string{d.path, d.path + "/gone"} {
		if all, err := New(Options{Dir: path}).Discover(t.Context(), writer.Scope{}); len(all) != 0 || err != nil {
			t.Errorf("%s: %d, %v", path, len(all), err)
		}
	}
	d.logs("a", "")
	in := d.instance(Options{})
	must(t, os.Remove(d.path+"/a"))
	wants(t, in.Check(t.Context()), problem.WriterGone)
}
