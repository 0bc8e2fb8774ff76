package cow

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/tree"
)

// What is stored is the same to the last attribute, however the snapshot is
// read, before and after everything has changed.
func TestDirectIsTheSame(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.variety()
		s := r.take(nil)
		here, there := r.reader(s), r.lent(s)
		for _, when := range []string{"before", "after"} {
			want := r.stored(tree.Source{Root: s.Root()})
			for where, d := range map[string]snapshot.Reader{"here": here, "there": there} {
				got := r.stored(r.directly(d))
				for name, entry := range want {
					if got[name] != entry {
						t.Errorf("%s, read %s: %s is\n%.2000s\nnot\n%.2000s", when, where, name, got[name], entry)
					}
				}
				if len(got) != len(want) {
					t.Errorf("%s, read %s: %d names, not %d", when, where, len(got), len(want))
				}
			}
			if when == "before" {
				r.alter()
			}
		}
		if gaps := s.Gaps(); len(gaps) > 0 {
			t.Errorf("gaps: %+v", gaps)
		}
		r.must(s.Err())
	})
}

// A part of a tree, a single file, and what is not there.
func TestDirectBeneath(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.variety()
		s := r.take(nil)
		d := r.lent(s)
		for rel, code := range map[string]problem.Code{"dir/nothing": problem.PathMissing, "dir/link/x": problem.FileChanged, "plain/x": problem.FileChanged} {
			if _, err := tree.DirectBeneath(d, rel, "/live"); problem.CodeOf(err) != code {
				t.Errorf("%s: %v", rel, err)
			}
		}
		for _, rel := range []string{"dir/below", "plain", "dir/link", "null"} {
			at, err := tree.DirectBeneath(d, rel, "/live")
			r.must(err)
			n, err := tree.Open(tree.Source{Path: "/live", Direct: at})
			r.must(err)
			shown, err := tree.Open(tree.Source{Path: "/live", Root: s.Root() + "/" + rel})
			r.must(err)
			if !reflect.DeepEqual(n.Entry, shown.Entry) {
				t.Errorf("%s is\n%+v, not\n%+v", rel, n.Entry, shown.Entry)
			}
			r.must(errors.Join(n.Close(), shown.Close()))
		}
	})
}

// open opens a file of a Reader.
func (r *rig) open(d snapshot.Reader, name string) snapshot.Content {
	r.Helper()
	top, err := d.Top()
	r.must(err)
	i, err := d.Lookup(top.Info.Inode, name)
	r.must(err)
	c, err := d.Open(i)
	r.must(err)
	r.Cleanup(func() { r.must(c.Close()) })
	return c
}

// What was read of a live file before it was let change is good, and all that is
// read after that is asked for; what changed without an event is never handed
// out as good, whichever came first.
func TestDirectTripwire(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		original := bytes.Repeat([]byte("original"), 1<<20/8)
		r.must(os.WriteFile(r.path("image"), original, 0o644))
		r.p.o.cold = func(u hot.Use) bool { return u.Kind == hot.Loop }
		out, err := exec.Command("losetup", "--find", "--show", "--direct-io=off", r.path("image")).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		device := strings.TrimSpace(string(out))
		t.Cleanup(func() { r.must(exec.Command("losetup", "--detach", device).Run()) })
		unseen := func() {
			f, err := os.OpenFile(device, os.O_WRONLY|syscall.O_SYNC, 0)
			r.must(err)
			_, err = f.WriteAt(bytes.Repeat([]byte("changed!"), 4096/8), 64<<10)
			r.must(errors.Join(err, f.Close()))
		}
		seen := func() {
			f, err := os.OpenFile(r.path("image"), os.O_WRONLY, 0)
			r.must(err)
			_, err = f.WriteAt([]byte("seen"), 0)
			r.must(errors.Join(err, f.Close()))
		}
		for _, k := range []struct {
			name string
			do   []func() // between two readings of half the file each
			torn bool
		}{
			{"nothing", nil, false},
			{"seen", []func(){seen}, false},
			{"unseen", []func(){unseen}, true},
			{"unseen, seen", []func(){unseen, seen}, true},
		} {
			r.must(os.WriteFile(r.path("image"), original, 0o644))
			s := r.take(nil)
			for _, d := range []snapshot.Reader{r.reader(s), r.lent(s)} {
				c := r.open(d, "image")
				got := make([]byte, len(original))
				_, before := c.ReadAt(got[:len(got)/2], 0)
				for _, do := range k.do {
					r.must(before)
					do()
				}
				k.do = nil // the second reader comes late, and reads the same
				_, err := c.ReadAt(got[len(got)/2:], int64(len(got)/2))
				err = errors.Join(before, err, c.Verify())
				switch {
				case !k.torn && (err != nil || !bytes.Equal(got, original)):
					t.Errorf("%s: %v, or wrong content", k.name, err)
				case k.torn && !errors.Is(err, syscall.EBADMSG):
					t.Errorf("%s: read with %v", k.name, err)
				}
				if !k.torn {
					continue
				}
				again := r.open(d, "image")
				_, err = again.ReadAt(got, 0)
				if err = errors.Join(err, again.Verify()); !errors.Is(err, syscall.EBADMSG) {
					t.Errorf("%s: read again with %v", k.name, err)
				}
			}
			if k.torn {
				wantGap(t, s, "image", problem.FileTorn)
			}
			r.must(s.Err())
			r.must(s.Release(t.Context()))
		}
	})
}

// A file whose chmod or utimes moved the times is no torn one.
func TestDirectAttributesChange(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), []byte("content"), 0o644))
		s := r.take(nil)
		c := r.open(r.lent(s), "file")
		got := make([]byte, 7)
		_, err := c.ReadAt(got, 0)
		r.must(err)
		r.must(errors.Join(os.Chmod(r.path("file"), 0o600), os.Chtimes(r.path("file"), time.Unix(5, 5), time.Unix(5, 5)), os.Link(r.path("file"), r.path("again"))))
		r.must(c.Verify())
		if string(got) != "content" {
			t.Errorf("reads %q", got)
		}
		r.must(s.Err())
	})
}

// Files that are given up, gone or released fail as they do through the view.
func TestDirectGivenUp(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), []byte("content"), 0o644))
		s := r.take(nil)
		d := r.lent(s)
		c, b := r.open(d, "file"), make([]byte, 7)
		_, err := c.ReadAt(b, 0)
		r.must(err)
		var st unix.Stat_t
		r.must(unix.Stat(r.path("file"), &st))
		s.shield.GiveUp(st.Ino)
		if _, err := c.ReadAt(b, 0); !errors.Is(err, syscall.EBADMSG) || problem.CodeOf(err) != problem.FileTorn {
			t.Errorf("given up: %v", err)
		}
		r.must(s.Release(t.Context()))
		if _, err := c.ReadAt(b, 0); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("released: %v", err)
		}
		if _, err := d.List(2); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("list a released one: %v", err)
		}
		if _, err := s.Reader(context.Background()); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("begin to read a released one: %v", err)
		}
	})
}
