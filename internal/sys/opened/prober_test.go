package opened

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// watch makes files that are opened from now on such that make events, as the
// idle filter does: a mark for accesses, and all of them ignored.
func watch(t *testing.T, dir string) {
	t.Helper()
	group, err := unix.FanotifyInit(unix.FAN_CLASS_PRE_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(group) })
	for _, flags := range []uint{unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM,
		unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM | unix.FAN_MARK_IGNORE_SURV} {
		if err := unix.FanotifyMark(group, flags, unix.FAN_ACCESS_PERM, unix.AT_FDCWD, dir); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Files opened before the watcher make no events, those opened afterwards do,
// also under a freeze, and none of them is changed.
func TestProber(t *testing.T) {
	for typ, size := range map[string]int64{"ext4": 64 * scratch.MiB, "xfs": 320 * scratch.MiB} {
		t.Run(typ, func(t *testing.T) {
			v := scratch.New(t, typ, size)
			path := filepath.Join(v.Dir, "file")
			if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
				t.Fatal(err)
			}
			modes := []int{os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR | unix.O_DIRECT}
			var before, after []*os.File
			for _, m := range modes {
				before = append(before, open(t, path, m))
			}
			watch(t, v.Dir)
			for _, m := range modes {
				after = append(after, open(t, path, m))
			}
			p, err := NewProber()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}()
			was, _ := os.Stat(path)
			look := func(when string) {
				t.Helper()
				for i := range modes {
					if emits, err := p.Emits(int(before[i].Fd())); err != nil || emits {
						t.Errorf("%s, opened before with %#x: %t, %v", when, modes[i], emits, err)
					}
					if emits, err := p.Emits(int(after[i].Fd())); err != nil || !emits {
						t.Errorf("%s, opened after with %#x: %t, %v", when, modes[i], emits, err)
					}
				}
			}
			look("live")
			freeze(t, v.Dir, func() { look("frozen") })
			is, _ := os.Stat(path)
			if !is.ModTime().Equal(was.ModTime()) || is.Size() != was.Size() {
				t.Errorf("changed from %+v to %+v", was, is)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
				t.Errorf("content %q, %v", b, err)
			}
			if emits, err := p.Emits(int(open(t, path, os.O_RDONLY).Fd())); err == nil {
				t.Errorf("open for reading: %t", emits)
			}
			const rounds = 1000
			began := time.Now()
			for range rounds {
				if emits, _ := p.Emits(int(after[0].Fd())); !emits {
					t.Fatal("once it makes events, once not")
				}
			}
			t.Logf("a question takes %v", time.Since(began)/rounds)
		})
	}
}

// freeze runs f while the file system is frozen, for two seconds at most.
func freeze(t *testing.T, dir string, f func()) {
	t.Helper()
	root := open(t, dir, os.O_RDONLY)
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // linux/fs.h
	thaw := func() error { return unix.IoctlSetInt(int(root.Fd()), fithaw, 0) }
	t.Cleanup(func() { _ = thaw() })
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(root.Fd()), fifreeze, 0); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*time.Second, func() { _ = thaw() })
	defer late.Stop()
	f()
	if err := thaw(); err != nil {
		t.Errorf("thawed too late: %v", err)
	}
}
