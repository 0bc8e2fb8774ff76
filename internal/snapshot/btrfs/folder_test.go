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

// One that was made by a process that was killed before it was tagged is ours.
func TestFolderUntagged(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	untagged := func() {
		t.Helper()
		must(t, os.Mkdir(d.in(folderName), 0o700))
		must(t, syscall.Chmod(d.in(folderName), untaggedMode))
	}
	untagged()
	left, err := New(host).Leftovers(t.Context())
	must(t, err)
	if len(left) != 1 {
		t.Fatalf("%d leftovers", len(left))
	}
	must(t, left[0].Release(t.Context()))
	nothingLeft(t, d)
	untagged()
	s := take(t, of(d.mounted("@"), "."))[0]
	must(t, s.Release(t.Context()))
	nothingLeft(t, d)
}

// One that is removed before it is tagged, by another process that takes it for that, is
// made once more.
func TestFolderMadeAndRemoved(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			left, _ := New(host).Leftovers(t.Context()) // one may have gone meanwhile
			for _, l := range left {
				_ = l.Release(t.Context())
			}
		}
	}()
	for range 20 {
		s := take(t, of(d.mounted("@"), "."))[0]
		must(t, s.Release(t.Context()))
	}
	close(stop)
	<-ended
	nothingLeft(t, d)
}
