package index

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"stillpoint/internal/sys/file"
)

// A directory that was read, and whose name then was not wanted, is forgotten with what
// is in it.
func TestReadWithoutName(t *testing.T) {
	for _, swept := range []bool{false, true} {
		b := &Builder{table: newTable(), leads: map[uint64]*lead{}}
		put := func(n byte, mode uint32) *Inode {
			in, _, _ := b.table.put(&Inode{Number: uint64(n), Handle: handle(t, n, 1), Mode: mode})
			return in
		}
		root, p, e := put(2, syscall.S_IFDIR), put(3, syscall.S_IFDIR), put(4, syscall.S_IFDIR)
		put(5, syscall.S_IFREG)
		b.table.add(2, nil)
		install := func(dir *Inode, l *lead, found ...Child) *work {
			t.Helper()
			fd, err := file.Open(file.Here, "/", file.Place|file.Directory)
			if err != nil {
				t.Fatal(err)
			}
			w := &work{whole: map[*Inode]bool{}, open: map[*reading]bool{}}
			w.changed.L = &w.mu
			if err := b.install(w, &reading{dir: dir, lead: l, fd: fd, whole: true, found: found}); err != nil {
				t.Fatal(err)
			}
			return w
		}
		install(root, nil, Child{"p", 3})
		install(e, nil, Child{"f", 5}) // found by a reading of p that is not at its end
		only := &lead{names: map[string]*lead{"x": nil}}
		b.lead(p, only) // p was found where only x is wanted
		if w := install(p, nil, Child{"e", 4}); len(w.unread) != 1 {
			t.Fatal("p is not read again")
		}
		install(p, only, Child{"x", none})
		if swept {
			for range 4 { // two for each level
				b.sweep()
			}
			if b.table.get(4) != nil || b.table.get(5) != nil {
				t.Error("it is still in the table")
			}
		}
		x := &Index{table: b.table, root: root, orphans: append(b.older, b.orphans...)}
		if err := x.Thawed(); err != nil {
			t.Fatal(err)
		}
		if x.Len() != 2 {
			t.Errorf("swept %t: Len() = %d, 2 inodes can be reached", swept, x.Len())
		}
	}
}

// What came too late and went again leaves nothing behind.
func TestTooLateAndGone(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		for _, d := range []string{"sel", "out/a/sub", "out/b/sub"} {
			if err := os.MkdirAll(v.path(d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		b := build(t, v, Options{Late: 1}, "sel")
		if err := b.Settle(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		move := func(from, to string) {
			t.Helper()
			for _, d := range []string{"/a", "/b"} {
				if err := os.Rename(v.path(from+d), v.path(to+d)); err != nil {
					t.Fatal(err)
				}
			}
		}
		move("out", "sel")
		v.frozen(t, func() {
			var late *TooLateError
			if x, err := b.Finish(nil); !errors.As(err, &late) {
				t.Errorf("%v, %v", x, err)
			}
		})
		move("sel", "out")
		if err := b.Settle(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		x := finish(t, v, b, nobody, "sel") // compares Len with what can be reached
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}
