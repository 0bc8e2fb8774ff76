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

// An agent is one of which some is dead, and a thread cannot die yet, with its filter
// and the holder of it, which is this process.
type dying struct {
	*testing.T
	k     *keeper
	group *fanotify.Permission
	mount *os.File
	files []*os.File // that make events
}

func (d *dying) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func newDying(t *testing.T, dir string) *dying {
	d := &dying{T: t, k: &keeper{client: -1, began: time.Now(), most: 1 << 16, buffer: fanotify.NewBuffer(4), disarmed: true}}
	root, err := os.Open(dir)
	d.must(err)
	defer root.Close()
	d.mount, err = inode.Clone(root)
	d.must(err)
	t.Cleanup(func() { d.mount.Close() })
	d.group, err = fanotify.Open()
	d.must(err)
	t.Cleanup(func() { d.group.Close() })
	d.must(d.group.Silence(d.mount))
	d.must(d.group.Watch(d.mount))
	d.files = []*os.File{create(t, dir, "unread"), create(t, dir, "read")}
	d.k.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	d.must(err)
	t.Cleanup(func() { _ = syscall.Close(d.k.epoll) })
	return d
}

// keep gives the filter to the holder.
func (d *dying) keep() {
	d.Helper()
	group, err := d.group.File()
	d.must(err)
	defer group.Close()
	var fds []int
	for _, f := range []*os.File{group, d.mount} {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 100) // none of the numbers that a holder is born with
		d.must(err)
		fds = append(fds, fd)
	}
	d.k.incoming = append(d.k.incoming, message{op: opKeep, seq: 7, name: "some"})
	d.must(d.k.keep(7, fds))
	d.Cleanup(d.k.release)
}

// write lets somebody write, who then waits. It is read by a thread that dies then, or
// unread.
func (d *dying) write(f *os.File, read bool) <-chan error {
	d.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := f.WriteAt([]byte("x"), 0)
		done <- err
	}()
	for n := 0; n == 0; {
		var err error
		n, err = d.group.Unread()
		d.must(err)
	}
	if read {
		events, err := d.group.Read(fanotify.NewBuffer(1))
		d.must(err)
		d.Cleanup(func() { d.group.Drop(events[0]) })
	}
	return done
}

// goOn lets the holder work until one goes on who waits.
func (d *dying) goOn(done <-chan error) {
	d.Helper()
	late := time.AfterFunc(20*time.Second, func() {
		_ = d.group.Close()
		for _, f := range d.k.kept {
			_ = f.Group.Close()
		}
	})
	for began := time.Now(); ; {
		select {
		case err := <-done:
			d.must(err)
			if !late.Stop() {
				d.Fatal("nobody lets him go on")
			}
			d.Logf("he went on after %v", time.Since(began))
			return
		default:
			d.k.step()
		}
	}
}

// Who was past the filter's check when all were let go on, does not wait until the last
// thread can die.
func TestDying(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		d := newDying(t, dir)
		d.keep()
		d.k.die(false)
		for i, f := range d.files {
			d.must(d.group.Arm(d.mount))
			d.goOn(d.write(f, i == 1))
		}
	})
}

// What the agent has given to the holder just before it died is let go of like all else.
func TestKeptLate(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		for i := range 2 {
			d := newDying(t, dir)
			d.k.beatTo, d.k.alone = d.k.now()+time.Minute, time.Minute
			d.k.die(true)
			for !d.k.answered() {
				d.k.step()
			}
			d.must(d.group.Arm(d.mount))
			done := d.write(d.files[i], i == 1)
			d.keep()
			d.goOn(done)
		}
	})
}
