package cow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// On a volume that would get full if deleted files were kept, no write fails:
// they are let go, and are gone from the snapshot by name, and nothing else is.
func TestDeletedOnFullVolume(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const size = 8 << 20
		var st syscall.Statfs_t
		r.must(syscall.Statfs(r.dir, &st))
		files := int(int64(st.Bavail) * st.Bsize * 6 / 10 / size)
		content := func(n int) []byte { return bytes.Repeat([]byte{byte('A' + n%60)}, size) }
		name := func(n int) string { return fmt.Sprint("file", n) }
		for n := range files {
			r.must(os.WriteFile(r.path(name(n)), content(n), 0o644))
		}
		s := r.take(nil)
		open, err := os.Open(filepath.Join(s.Root(), name(0)))
		r.must(err)
		defer open.Close()
		_, err = open.Read(make([]byte, 100))
		r.must(err)
		const left = 3
		for n := range files - left {
			r.must(os.Remove(r.path(name(n))))
			if err := os.WriteFile(r.path(fmt.Sprint("later", n)), content(n), 0o644); err != nil {
				t.Fatalf("with %d files deleted: %v", n+1, err)
			}
		}
		waitFor(t, func() bool { return len(s.Gaps()) > 0 })
		s.leaveSpace() // by then all are named
		named := map[string]bool{}
		for _, g := range s.Gaps() {
			named[g.Path] = true
			if g.Code != problem.FileGone {
				t.Errorf("%+v", g)
			}
		}
		gone := 0
		for n := range files {
			b, err := os.ReadFile(filepath.Join(s.Root(), name(n)))
			switch {
			case err == nil && !bytes.Equal(b, content(n)):
				t.Errorf("%s is another one", name(n))
			case err != nil && !errors.Is(err, syscall.ESTALE):
				t.Errorf("%s: %v", name(n), err)
			case n >= files-left && err != nil:
				t.Errorf("%s was not deleted: %v", name(n), err)
			case n < files/4 && (err != nil) != named[name(n)]: // deleted before it got short
				t.Errorf("%s: %v, and is named: %t", name(n), err, named[name(n)])
			case err != nil:
				gone++
			}
		}
		if len(s.Gaps()) != gone {
			t.Errorf("%d files are gone, named are %+v", gone, s.Gaps())
		}
		t.Logf("%d of %d files are gone, %d were named before they were read", gone, files, len(named))
		r.must(s.Err())
	})
}

// When to look again, and when it is short.
func TestSpace(t *testing.T) {
	for _, c := range []struct {
		free, least space
		wait        time.Duration
		short       bool
	}{
		{space{1 << 40, 1 << 30}, space{1 << 30, 1 << 20}, lookMost, false},
		{space{1<<30 + 400<<20, 1 << 30}, space{1 << 30, 1 << 20}, 97656250, false},
		{space{1<<30 + 4096, 1 << 30}, space{1 << 30, 1 << 20}, lookLeast, false},
		{space{1<<30 - 1, 1 << 30}, space{1 << 30, 1 << 20}, 0, true},
		{space{1 << 40, 9}, space{1 << 30, 10}, 0, true},
		{space{1 << 40, 0}, space{1 << 30, 0}, lookLeast, false}, // a file system that does not count them
	} {
		if wait, short := c.free.next(c.least); wait != c.wait || short != c.short {
			t.Errorf("%+v of %+v: %v, %t", c.free, c.least, wait, short)
		}
	}
	if r := reserve(space{1 << 30, 1000}, space{100 << 30, 100_000}); r != (space{512 << 20, 500}) {
		t.Errorf("little is free: %+v", r)
	}
	if r := reserve(space{0, 0}, space{1 << 30, 2000}); r != (space{4 << 20, 16}) {
		t.Errorf("a full volume: %+v", r)
	}
	if r := reserve(space{1 << 30, 0}, space{1 << 30, 0}); r.inodes != 0 {
		t.Errorf("without a number of inodes: %+v", r)
	}
	if r := reserve(space{1 << 30, 1000}, space{1 << 30, 2000}); r != (space{16 << 20, 64}) {
		t.Errorf("a small volume: %+v", r)
	}
}

// What was taken within the last second, from the fullest of its looks on.
func TestPace(t *testing.T) {
	var p pace
	began := time.Now()
	for _, c := range []struct {
		after      time.Duration
		free, less space
	}{
		{0, space{1000, 50}, space{}},
		{100 * time.Millisecond, space{400, 49}, space{600, 1}},
		{200 * time.Millisecond, space{900, 60}, space{100, 0}},
		{1150 * time.Millisecond, space{500, 58}, space{400, 2}}, // the first two are too old
		{9 * time.Second, space{100 << 30, 8}, space{}},
		{9*time.Second + 1, space{10 << 30, 8}, space{fastest, 0}},
	} {
		if less := p.took(began.Add(c.after), c.free); less != c.less {
			t.Errorf("after %v: %+v, want %+v", c.after, less, c.less)
		}
	}
	if len(p) != 2 {
		t.Errorf("%d looks are kept", len(p))
	}
}
