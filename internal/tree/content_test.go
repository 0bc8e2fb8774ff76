package tree

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stillpoint/internal/problem"
)

func openRoot(t *testing.T, root string) *Dir {
	t.Helper()
	n, err := Open(Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n.Dir
}

// TestWhatChangesBetweenStatAndOpen: whatever takes the place of a file is not
// read as if it were it, and nobody waits for the writer of a FIFO.
func TestWhatChangesBetweenStatAndOpen(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(path string) error
		want problem.Code
	}{
		"nothing":    {func(string) error { return nil }, problem.FileVanished},
		"other file": {func(p string) error { return os.WriteFile(p, []byte("x"), 0o644) }, problem.FileChanged},
		"link":       {func(p string) error { return os.Symlink("other", p) }, problem.FileChanged},
		"fifo":       {func(p string) error { return syscall.Mkfifo(p, 0o600) }, problem.FileChanged},
		"socket":     {func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o600, 0) }, problem.FileChanged},
		"directory":  {func(p string) error { return os.Mkdir(p, 0o755) }, problem.FileChanged},
	} {
		t.Run(name, func(t *testing.T) {
			root := place(t, t.TempDir(), "x", "other")
			d := openRoot(t, root)
			e, err := d.Stat("x")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(root, "x"), filepath.Join(root, "away")); err != nil {
				t.Fatal(err)
			}
			if err := c.put(filepath.Join(root, "x")); err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() {
				content, err := d.OpenFile(e)
				if err == nil {
					_ = content.Close()
				}
				done <- err
			}()
			select {
			case err := <-done:
				wantCode(t, err, c.want)
			case <-time.After(10 * time.Second):
				t.Error("it waits")
			}
		})
	}
}

func TestWhatChangesOtherwise(t *testing.T) {
	root := place(t, t.TempDir(), "dir/x", "gone/")
	if err := os.Symlink("x", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	d := openRoot(t, root)
	link, err := d.Stat("link")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "dir", "gone"} {
		if err := os.Rename(filepath.Join(root, name), filepath.Join(root, name+".away")); err != nil {
			t.Fatal(err)
		}
	}
	place(t, root, "link", "dir")
	wantCode(t, d.Complete(&link), problem.FileChanged)
	_, err = d.OpenDir("dir")
	wantCode(t, err, problem.FileChanged)
	_, err = d.OpenDir("gone")
	wantCode(t, err, problem.FileVanished)
	_, err = d.Stat("gone")
	wantCode(t, err, problem.FileVanished)
	if p := (*problem.Problem)(nil); !errors.As(err, &p) || p.Subject != "/live/gone" {
		t.Errorf("subject of %v", err)
	}
	_, err = Open(Source{Path: "/live/none", Root: filepath.Join(root, "none")})
	wantCode(t, err, problem.PathMissing)
	_, err = Open(Source{Path: "/live/none", Root: filepath.Join(root, "link/below")})
	if problem.CodeOf(err) == problem.Uncatalogued {
		t.Error(err)
	}
}

func TestChanged(t *testing.T) {
	root := place(t, t.TempDir(), "x")
	path := filepath.Join(root, "x")
	d := openRoot(t, root)
	look := func() Entry {
		t.Helper()
		e, err := d.Stat("x")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	before := look()
	c, err := d.OpenFile(before)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if now, err := c.Stat(); err != nil || Changed(before, now) {
		t.Errorf("changed: %+v, %v", now, err)
	}
	for _, change := range []func() error{
		func() error { return os.WriteFile(path, []byte("y"), 0o644) },
		func() error { return os.Chtimes(path, ours, before.Modified) }, // ctime tells
		func() error { return os.Truncate(path, 7) },
	} {
		time.Sleep(20 * time.Millisecond) // the granule of the kernel's clock
		before := look()
		time.Sleep(20 * time.Millisecond)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if now, err := c.Stat(); err != nil || !Changed(before, now) {
			t.Errorf("not changed: %+v, %v", now, err)
		}
	}
}

func TestReadAt(t *testing.T) {
	d := openRoot(t, place(t, t.TempDir(), "0123456789"))
	e, err := d.Stat("0123456789")
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.OpenFile(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		off  int64
		size int
		text string
		err  error
	}{{0, 10, "0123456789", nil}, {3, 4, "3456", nil}, {8, 4, "89", io.EOF}, {10, 1, "", io.EOF}, {50, 1, "", io.EOF}} {
		b := make([]byte, want.size)
		n, err := c.ReadAt(b, want.off)
		if string(b[:n]) != want.text || err != want.err {
			t.Errorf("at %d: %q, %v", want.off, b[:n], err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	_, err = c.ReadAt(make([]byte, 1), 0)
	wantCode(t, err, problem.FileUnreadable)
}

// TestHoles writes blocks at random and expects that holes and data together
// are the file: what is a hole reads as zeros, and what is none is not large.
func TestHoles(t *testing.T) {
	const block = 64 << 10 // more than any file system allocates at a time
	root := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		path := filepath.Join(root, "x")
		blocks := rapid.SliceOfN(rapid.Bool(), 0, 12).Draw(r, "data")
		f, err := os.Create(path)
		if err != nil {
			r.Fatal(err)
		}
		_ = f.Truncate(int64(len(blocks)) * block)
		var want []Range
		for i, data := range blocks {
			off := int64(i) * block
			switch {
			case data:
				if _, err := f.WriteAt(make([]byte, block), off); err != nil {
					r.Fatal(err)
				}
			case i > 0 && !blocks[i-1]:
				want[len(want)-1].Length += block
			default:
				want = append(want, Range{off, block})
			}
		}
		if err := f.Close(); err != nil {
			r.Fatal(err)
		}
		d := openRoot(t, root)
		e, err := d.Stat("x")
		if err != nil {
			r.Fatal(err)
		}
		c, err := d.OpenFile(e)
		if err != nil {
			r.Fatal(err)
		}
		defer c.Close()
		got, err := c.Holes()
		if err != nil || len(got) != len(want) {
			r.Fatalf("holes %v, want %v, %v", got, want, err)
		}
		for i := range got {
			if got[i] != want[i] {
				r.Fatalf("holes %v, want %v", got, want)
			}
		}
	})
}

func TestVeryManyHoles(t *testing.T) {
	root := t.TempDir()
	f, err := os.Create(filepath.Join(root, "x"))
	if err != nil {
		t.Fatal(err)
	}
	const count = 2*holesMax + 100
	for i := range int64(count) {
		off := i * (16 << 10)
		if i >= count-50 {
			off += (i - (count - 50)) * (1 << 20) // the last holes are the largest
		}
		if _, err := f.WriteAt([]byte("x"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d := openRoot(t, root)
	e, err := d.Stat("x")
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.OpenFile(e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	holes, err := c.Holes()
	if err != nil || len(holes) != holesMax {
		t.Fatalf("%d holes, %v", len(holes), err)
	}
	large, last := 0, int64(-1)
	for _, h := range holes {
		if h.Offset <= last {
			t.Fatal("not in order")
		}
		last = h.Offset
		if h.Length > 500<<10 {
			large++
		}
	}
	if large != 49 {
		t.Errorf("%d large holes of 49 were kept", large)
	}
}
