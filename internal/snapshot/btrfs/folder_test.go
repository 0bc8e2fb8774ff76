package btrfs

import (
	"os"
	"syscall"
	"testing"

	"stillpoint/internal/scratch"
)

// An empty folder that we did not make is used and stays.
func TestFolderOfAnother(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	must(t, os.Mkdir(d.in(folderName), 0o700))
	s := take(t, of(d.mounted("@"), "."))[0]
	must(t, s.Release(t.Context()))
	left, err := New(host).Leftovers(t.Context())
	if len(left) > 0 || err != nil {
		t.Errorf("%d leftovers, %v", len(left), err)
	}
	if n := names(t, d.in(folderName)); n != "" {
		t.Errorf("left in it: %s", n)
	}
	// The tag of another file system, of which this may be a copy.
	must(t, syscall.Setxattr(d.in(folderName), recordTag, []byte("00000000-0000-0000-0000-000000000001"), 0))
	s = take(t, of(d.mounted("@"), "."))[0]
	must(t, s.Release(t.Context()))
	if _, err := os.Stat(d.in(folderName)); err != nil {
		t.Error(err)
	}
}

// That our own cannot be removed, as something else is in it, or mounted on it,
// is no failure.
func TestFolderInUse(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	s := take(t, of(d.mounted("@"), "."))[0]
	must(t, os.WriteFile(d.in(folderName+"/other"), nil, 0o600))
	must(t, s.Release(t.Context()))
	must(t, os.Remove(d.in(folderName+"/other")))

	s = take(t, of(d.mounted("@"), "."))[0]
	scratch.Run(t, "mount", "-t", "tmpfs", "none", d.in(folderName))
	t.Cleanup(func() { _ = syscall.Unmount(d.in(folderName), 0) })
	must(t, s.Release(t.Context()))
	must(t, syscall.Unmount(d.in(folderName), 0))
	left, err := New(host).Leftovers(t.Context())
	must(t, err)
	for _, l := range left {
		must(t, l.Release(t.Context()))
	}
	nothingLeft(t, d)
}
