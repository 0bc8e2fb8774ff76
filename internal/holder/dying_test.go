package holder

import (
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
)

// Some of an agent is dead, and a thread cannot die yet: who was past the filter's
// check by then does not wait for that, neither unread nor read by one that died.
func TestDying(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.Open(dir)
		must(err)
		defer root.Close()
		mount, err := inode.Clone(root)
		must(err)
		defer mount.Close()
		group, err := fanotify.Open()
		must(err)
		defer group.Close()
		must(group.Silence(mount))
		must(group.Watch(mount))
		files := []*os.File{create(t, dir, "unread"), create(t, dir, "read")}

		k := &keeper{client: -1, began: time.Now(), most: 1 << 16, buffer: fanotify.NewBuffer(4), disarmed: true}
		k.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		must(err)
		defer syscall.Close(k.epoll)
		dup, err := group.File()
		must(err)
		defer dup.Close()
		far, err := unix.FcntlInt(dup.Fd(), unix.F_DUPFD_CLOEXEC, 100) // none of the numbers that a holder is born with
		must(err)
		kept := &kept{Filter{Name: "some", Mount: mount}, far}
		kept.Group, err = fanotify.AdoptDescriptor(far)
		must(err)
		defer kept.Group.Close()
		k.kept = append(k.kept, kept)
		k.die(false)

		for _, f := range files {
			must(group.Arm(mount))
			done := make(chan error, 1)
			go func() {
				_, err := f.WriteAt([]byte("x"), 0)
				done <- err
			}()
			for n := 0; n == 0; {
				n, err = group.Unread()
				must(err)
			}
			if f == files[1] {
				events, err := group.Read(fanotify.NewBuffer(1))
				must(err)
				defer group.Drop(events[0])
			}
			late := time.AfterFunc(20*time.Second, func() { _ = group.Close(); _ = kept.Group.Close() })
			for began, waits := time.Now(), true; waits; {
				select {
				case err := <-done:
					must(err)
					t.Logf("%s: let go after %v", f.Name(), time.Since(began))
					waits = false
				default:
					k.step()
				}
			}
			if !late.Stop() {
				t.Fatalf("%s: nobody lets it go", f.Name())
			}
		}
	})
}
