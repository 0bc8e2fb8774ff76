package openfile

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	for _, text := range []string{"fail", "skip", "wait:30s", "lock", "read"} {
		if w, err := Parse(text); err != nil || w.String() != text {
			t.Errorf("%s: %v, %v", text, w, err)
		}
	}
	for _, text := range []string{"wait", "wait:", "wait:-1s", "skip:1s", "sometimes"} {
		if w, err := Parse(text); !problem.Is(err, problem.Usage) {
			t.Errorf("%s: %v, %v", text, w, err)
		}
	}
}

// A rig is one file, as it is read and as others have it.
type rig struct {
	*testing.T
	path string
	read *os.File
	said string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, path: filepath.Join(t.TempDir(), "file")}
	if err := os.WriteFile(r.path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.read, err = os.Open(r.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.read.Close() })
	return r
}

func (r *rig) write() *os.File {
	r.Helper()
	f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { f.Close() })
	return f
}

func (r *rig) watch(text string) *Watch {
	r.Helper()
	treatment, err := Parse(text)
	if err != nil {
		r.Fatal(err)
	}
	w, err := New(r.Context(), treatment)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(w.Close)
	return w
}

func (r *rig) opened(w *Watch) (func() error, error) {
	return w.Opened(r.Context(), int(r.read.Fd()), func(text string) { r.said = text })
}

// want asks about the file, runs during, and compares the codes of both answers.
func (r *rig) want(w *Watch, before problem.Code, during func(), after problem.Code) error {
	r.Helper()
	end, err := r.opened(w)
	if problem.CodeOf(err) != before {
		r.Fatalf("%s: before the reading %v, want %q", w, err, before)
	}
	if end == nil {
		return err
	}
	during()
	if err = end(); problem.CodeOf(err) != after {
		r.Errorf("%s: after the reading %v, want %q", w, err, after)
	}
	return err
}

func nothing() {}

// A file that nobody writes to is no exception; one that is open for writing is
// treated as was chosen; and what is opened while it is read is noticed.
func TestTreatments(t *testing.T) {
	for text, code := range map[string]struct{ before, after, opened problem.Code }{
		"skip":       {problem.FileOpen, "", problem.FileChanged},
		"wait:200ms": {problem.FileOpen, "", problem.FileChanged},
		"read":       {"", problem.FileOpenRead, problem.FileOpenRead},
		"lock":       {"", problem.FileOpenRead, problem.FileChanged},
	} {
		t.Run(text, func(t *testing.T) {
			r := newRig(t)
			w := r.watch(text)
			r.want(w, "", nothing, "")
			r.want(w, "", func() { r.write() }, code.opened)
			err := r.want(w, code.before, nothing, code.after)
			if name, _, _ := strings.Cut(text, ":"); !strings.Contains(err.Error(), name) {
				t.Errorf("%v does not say how it was treated", err)
			}
		})
	}
}

// A file that is mapped so that it can be written to is open, though its
// descriptor is closed.
func TestMapped(t *testing.T) {
	r := newRig(t)
	f, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, 7, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	w := r.watch("skip")
	r.want(w, problem.FileOpen, nothing, "")
	if err := syscall.Munmap(m); err != nil {
		t.Fatal(err)
	}
	r.want(w, "", nothing, "")
}

// A file is waited for until it is closed, and no longer than who waits wants.
func TestWait(t *testing.T) {
	r := newRig(t)
	f := r.write()
	time.AfterFunc(300*time.Millisecond, func() { f.Close() })
	r.want(r.watch("wait:1m"), "", nothing, "")
	if !strings.HasPrefix(r.said, "was open for writing, and closed after") {
		t.Errorf("said is %q", r.said)
	}
	r.write()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	if _, err := r.watch("wait:10m").Opened(ctx, int(r.read.Fd()), nil); err == nil || time.Since(began) > time.Minute {
		t.Errorf("cancelled: %v after %v", err, time.Since(began))
	}
}

// Who opens a locked file for writing gets it at once, and is noticed. The kernel
// would let it wait for 45 s.
func TestLockGivesWay(t *testing.T) {
	r := newRig(t)
	w := r.watch("lock")
	for range 3 {
		r.want(w, "", func() {
			began := time.Now()
			if out, err := exec.Command("sh", "-c", `echo more >>"$1"`, "sh", r.path).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("a writer waited for %v", took)
			}
		}, problem.FileChanged)
		r.want(w, "", nothing, "")
	}
}

// Where the kernel does not tell, each file is an exception, and in each of its
// readings: the first may not be the one that is kept. A pipe stands for a file of
// another host: it has no leases.
func TestUntold(t *testing.T) {
	for _, text := range []string{"skip", "wait:1m", "read", "lock"} {
		r := newRig(t)
		w := r.watch(text)
		for range 2 {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.read.Close()
			r.read = read
			for range 2 {
				if err := r.want(w, "", nothing, problem.FileOpenRead); err != nil && !strings.Contains(err.Error(), "cannot be told") {
					t.Errorf("%s: %v", text, err)
				}
			}
			write.Close()
		}
	}
}

// Without the helper process nothing is locked, and that is said; what it had
// locked, is not.
func TestLockDies(t *testing.T) {
	r := newRig(t)
	w := r.watch("lock")
	err := r.want(w, "", func() {
		w.locks.close()
		r.write() // waits until the helper process is gone
	}, problem.FileOpenRead)
	if err == nil || !strings.Contains(err.Error(), "cannot be told") {
		t.Error(err)
	}
}
