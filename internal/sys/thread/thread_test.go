package thread

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What f does to its thread, no other goroutine meets: the thread ends with f, and
// is never the first one.
func TestApart(t *testing.T) {
	dir := t.TempDir()
	for range 50 {
		tid := make(chan int)
		go Apart(func() {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				t.Error(err)
			} else if err := os.Chdir(dir); err != nil {
				t.Error(err)
			}
			tid <- unix.Gettid()
		})
		id := <-tid
		if id == os.Getpid() {
			t.Fatal("it is the first thread")
		}
		for end := time.Now().Add(20 * time.Second); unix.Tgkill(os.Getpid(), id, 0) == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the thread did not end")
			}
		}
		if here, err := unix.Getwd(); err != nil || here == dir {
			t.Fatalf("another goroutine is in %s, %v", here, err)
		}
	}
}
