package fanotify

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/inode"
)

// changeVolumes runs a test on ext4 and on XFS.
func changeVolumes(t *testing.T, f func(t *testing.T, dir *os.File)) {
	for fsType, size := range map[string]int64{"ext4": 128 * scratch.MiB, "xfs": 400 * scratch.MiB} {
		t.Run(fsType, func(t *testing.T) {
			dir, err := os.Open(scratch.New(t, fsType, size).Dir)
			mustAll(t, err)
			t.Cleanup(func() { dir.Close() })
			f(t, dir)
		})
	}
}

func mustAll(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func changesOf(t *testing.T, dir *os.File, mask Mask) *Changes {
	t.Helper()
	c, err := NewChanges(dir, mask)
	mustAll(t, err)
	t.Cleanup(func() { mustAll(t, c.Close()) })
	return c
}

// told describes all events in the queue, with the names that handles had.
func told(t *testing.T, c *Changes, names map[inode.Handle]string) []string {
	t.Helper()
	var all []string
	mustAll(t, c.Read(func(e *Change) {
		name := func(h inode.Handle) string {
			if n, ok := names[h]; ok {
				return n
			}
			if h.IsZero() {
				return "-"
			}
			return "?"
		}
		var kinds []string
		for mask, kind := range map[Mask]string{Created: "create", Deleted: "delete", Renamed: "rename", Attributes: "attributes",
			Modified: "modify", WriterClosed: "closed", Opened: "open", OfDirectory: "dir"} {
			if e.Mask&mask != 0 {
				kinds = append(kinds, kind)
			}
		}
		slices.Sort(kinds)
		s := fmt.Sprintf("%s %s/%s", strings.Join(kinds, "+"), name(e.Dir), e.Name)
		if !e.NewDir.IsZero() {
			s += fmt.Sprintf(" > %s/%s", name(e.NewDir), e.NewName)
		}
		all = append(all, s+" = "+name(e.Target))
	}))
	slices.Sort(all)
	return all
}

// Each change tells its names and the inode.
func TestChanges(t *testing.T) {
	changeVolumes(t, func(t *testing.T, dir *os.File) {
		p := dir.Name()
		mustAll(t, os.MkdirAll(p+"/d1", 0o700), os.MkdirAll(p+"/d2", 0o700), os.WriteFile(p+"/d1/old", make([]byte, 9000), 0o600), os.WriteFile(p+"/d2/over", nil, 0o600))
		names := map[inode.Handle]string{}
		know := func(as string, path string) {
			h, err := inode.Of(unix.AT_FDCWD, path)
			mustAll(t, err)
			names[h] = as
		}
		know("root", p)
		know("d1", p+"/d1")
		know("d2", p+"/d2")
		know("F", p+"/d1/old")
		know("O", p+"/d2/over")
		before, err := os.OpenFile(p+"/d1/old", os.O_RDWR, 0)
		mustAll(t, err)
		defer before.Close()
		c := changesOf(t, dir, Names|Attributes|Modified|WriterClosed)
		if got := told(t, c, names); len(got) != 0 {
			t.Fatalf("before anything: %q", got)
		}
		for _, step := range []struct {
			what string
			do   func() error
			want []string
		}{
			{"chmod", func() error { return os.Chmod(p+"/d1/old", 0o640) }, []string{"attributes d1/old = F"}},
			{"chmod of a directory", func() error { return os.Chmod(p+"/d1", 0o750) }, []string{"attributes+dir d1/ = d1"}},
			{"chmod of the root", func() error { return os.Chmod(p, 0o750) }, []string{"attributes+dir root/ = root"}},
			{"chown", func() error { return os.Lchown(p+"/d1/old", 1, 1) }, []string{"attributes d1/old = F"}},
			{"xattr", func() error { return unix.Setxattr(p+"/d1/old", "user.a", nil, 0) }, []string{"attributes d1/old = F"}},
			{"write to a file opened before", func() error { _, err := before.WriteAt([]byte("x"), 0); return err }, []string{"modify d1/old = F"}},
			{"truncate", func() error { return os.Truncate(p+"/d1/old", 5000) }, []string{"modify d1/old = F"}},
			{"equal changes are one", func() error {
				return errors.Join(os.Chmod(p+"/d1/old", 0o600), os.Chmod(p+"/d1/old", 0o640), os.Truncate(p+"/d1/old", 4000))
			}, []string{"attributes+modify d1/old = F"}},
			{"link", func() error { return os.Link(p+"/d1/old", p+"/d2/second") }, []string{"attributes -/ = F", "create d2/second = F"}},
			{"rename", func() error { return os.Rename(p+"/d1/old", p+"/d2/new") }, []string{"rename d1/old > d2/new = F"}},
			{"rename over", func() error { return os.Rename(p+"/d2/new", p+"/d2/over") }, []string{"attributes -/ = O", "rename d2/new > d2/over = F"}},
			{"exchange", func() error {
				return unix.Renameat2(unix.AT_FDCWD, p+"/d2/over", unix.AT_FDCWD, p+"/d1", unix.RENAME_EXCHANGE)
			}, []string{"dir+rename root/d1 > d2/over = d1", "rename d2/over > root/d1 = F"}},
			{"exchange back", func() error {
				return unix.Renameat2(unix.AT_FDCWD, p+"/d2/over", unix.AT_FDCWD, p+"/d1", unix.RENAME_EXCHANGE)
			}, []string{"dir+rename d2/over > root/d1 = d1", "rename root/d1 > d2/over = F"}},
			{"remove", func() error { return os.Remove(p + "/d2/over") }, []string{"attributes -/ = F", "delete d2/over = F"}},
			{"mkdir", func() error { return os.Mkdir(p+"/d2/new", 0o700) }, []string{"create+dir d2/new = ?"}},
			{"rmdir", func() error { return os.Remove(p + "/d2/new") }, []string{"delete+dir d2/new = ?"}},
			{"new file", func() error { return os.WriteFile(p+"/d2/file", []byte("x"), 0o600) }, []string{"closed+create+modify d2/file = ?"}},
		} {
			mustAll(t, step.do())
			got := told(t, c, names)
			if !slices.Equal(got, step.want) {
				t.Errorf("%s:\n%q, want\n%q", step.what, got, step.want)
			}
		}
	})
}

// Openings are told between Add and Remove, but not those through a silenced
// mount.
func TestChangesOpened(t *testing.T) {
	changeVolumes(t, func(t *testing.T, dir *os.File) {
		mustAll(t, os.WriteFile(dir.Name()+"/f", nil, 0o600))
		private, err := inode.Clone(dir)
		mustAll(t, err)
		defer private.Close()
		c := changesOf(t, private, Names)
		h, err := inode.Of(unix.AT_FDCWD, dir.Name()+"/f")
		mustAll(t, err)
		names := map[inode.Handle]string{h: "F"}
		root, err := inode.Of(unix.AT_FDCWD, dir.Name())
		mustAll(t, err)
		names[root] = "root"
		touch := func() {
			for _, path := range []string{dir.Name() + "/f", fmt.Sprintf("/proc/self/fd/%d/f", private.Fd())} {
				f, err := os.Open(path)
				mustAll(t, err)
				f.Close()
			}
			fd, err := inode.Open(int(private.Fd()), h, unix.O_RDONLY)
			mustAll(t, err)
			mustAll(t, unix.Close(fd))
		}
		touch()
		if got := told(t, c, names); len(got) != 0 {
			t.Errorf("before Add: %q", got)
		}
		mustAll(t, c.Silence(), c.Add(Opened))
		touch()
		if got := told(t, c, names); !slices.Equal(got, []string{"open root/f = F"}) {
			t.Errorf("after Add: %q", got)
		}
		mustAll(t, c.Remove(Opened))
		touch()
		if got := told(t, c, names); len(got) != 0 {
			t.Errorf("after Remove: %q", got)
		}
	})
}

// The queue has no limit, and reading it costs no memory for each event.
func TestChangesMany(t *testing.T) {
	changeVolumes(t, func(t *testing.T, dir *os.File) {
		c := changesOf(t, dir, Names)
		const n = 30_000 // the usual limit is 16,384
		for i := range n {
			mustAll(t, os.Symlink("x", fmt.Sprintf("%s/%d", dir.Name(), i)))
		}
		count := 0
		allocs := testing.AllocsPerRun(1, func() { mustAll(t, c.Read(func(*Change) { count++ })) })
		if count != n {
			t.Errorf("%d events, want %d", count, n)
		}
		if allocs > 10 {
			t.Errorf("%.0f allocations", allocs)
		}
	})
}

func TestChangesClosed(t *testing.T) {
	changeVolumes(t, func(t *testing.T, dir *os.File) {
		c, err := NewChanges(dir, Names)
		mustAll(t, err, c.Close(), c.Close())
		if err := c.Read(nil); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if err := c.Add(Opened); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Add: %v", err)
		}
	})
}

// What the kernel did not write is not taken for an event, and an overflow is
// noticed.
func TestParseChanges(t *testing.T) {
	event := func(mask uint64, records ...byte) []byte {
		b := make([]byte, unix.FAN_EVENT_METADATA_LEN, 100)
		native.PutUint32(b, uint32(len(b)+len(records)))
		b[4] = unix.FANOTIFY_METADATA_VERSION
		native.PutUint16(b[6:], unix.FAN_EVENT_METADATA_LEN)
		native.PutUint64(b[8:], mask)
		return append(b, records...)
	}
	fid := func(kind, handle byte) []byte {
		return []byte{kind, 0, 28, 0, 1, 1, 1, 1, 2, 2, 2, 2, 8, 0, 0, 0, handle, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0}
	}
	good := event(unix.FAN_ATTRIB, fid(unix.FAN_EVENT_INFO_TYPE_FID, 1)...)
	count := 0
	each := func(e *Change) {
		if count++; e.Target.Number() != 7 {
			t.Errorf("target %d", e.Target.Number())
		}
	}
	if !parseChanges(append(slices.Clone(good), good...), each) || count != 2 {
		t.Errorf("%d events of 2", count)
	}
	count = 0
	for name, b := range map[string][]byte{
		"overflow":       event(unix.FAN_Q_OVERFLOW),
		"no handle":      event(unix.FAN_ATTRIB, fid(unix.FAN_EVENT_INFO_TYPE_FID, 0xff)...),
		"nothing":        event(unix.FAN_ATTRIB),
		"short":          good[:len(good)-1],
		"short record":   event(unix.FAN_ATTRIB, 1, 0),
		"record too far": event(unix.FAN_ATTRIB, 1, 0, 99, 0),
		"record of none": event(unix.FAN_ATTRIB, 1, 0, 0, 0),
	} {
		if parseChanges(b, each) || count != 0 {
			t.Errorf("%s: taken for an event", name)
		}
	}
}
