package scratch

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Silent mounts a file system whose program never answers, as a share on a server that
// is gone, until the test ends or the function that it returns is called. Whoever asks it
// anything waits until then. Its type is fuse.SOMETHING, or fuseblk with a block device as
// its source.
func Silent(tb testing.TB, source, point, fsType string) (end func()) {
	tb.Helper()
	NeedRoot(tb)
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	end = func() {
		_ = f.Close() // ends all requests
		_ = syscall.Unmount(point, syscall.MNT_DETACH)
	}
	tb.Cleanup(end)
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", f.Fd())
	if err := syscall.Mount(source, point, fsType, syscall.MS_NODEV|syscall.MS_NOSUID, options); err != nil {
		tb.Fatalf("mount %s: %v", fsType, err)
	}
	return end
}
