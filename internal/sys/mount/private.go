package mount

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/thread"
)

// A Private is a mount namespace of its own with all mounts of the host, for
// programs that are to see some paths otherwise. One thread of this process
// lives in it; a child that is started in that thread lives there, too. What
// is changed in it reaches nobody else, and what is mounted or unmounted on the
// host does not reach it. It ends with its last process.
type Private struct {
	calls chan func()
	quit  chan struct{}
	ended chan struct{}
}

// NewPrivate makes a Private.
func NewPrivate() (*Private, error) {
	p := &Private{calls: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error)
	go thread.Apart(func() { p.live(ready) })
	if err := <-ready; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Private) live(ready chan<- error) {
	defer close(p.ended)
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err != nil {
		ready <- failed("unshare", "mount namespace", err)
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		ready <- failed("mount private", "/", err)
		return
	}
	ready <- nil
	for {
		select {
		case call := <-p.calls:
			call()
		case <-p.quit:
			return
		}
	}
}

// Do runs f in the thread that lives in the namespace, and waits for it.
func (p *Private) Do(f func() error) error {
	done := make(chan error)
	select {
	case p.calls <- func() { done <- f() }:
		return <-done
	case <-p.ended:
		return failed("use", "mount namespace", os.ErrClosed)
	}
}

// Clone makes another mount of what shows at path, without what is mounted
// below it. It is attached nowhere.
func (p *Private) Clone(path string) (m *os.File, err error) {
	err = p.Do(func() error {
		fd, err := openPath(unix.AT_FDCWD, path, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			return failed("openat2", path, err)
		}
		defer unix.Close(fd)
		m, err = clone(fd, path, 0)
		return err
	})
	return m, err
}

// Clear takes out of the namespace what is mounted at path and below it, so that
// what is attached there next covers nothing. What the kernel keeps, because it
// belongs to another user's namespace or lies under something else, stays.
func (p *Private) Clear(path string) error {
	return p.Do(func() error {
		for more := true; more; { // what was under another one comes to light
			points, err := pointsFrom(path)
			if err != nil {
				return err
			}
			more = false
			for _, point := range slices.Backward(points) {
				if unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
					more = true
				}
			}
		}
		return nil
	})
}

// pointsFrom are the mount points at path and below it in the namespace of the
// calling thread, those that lie in others after these.
func pointsFrom(path string) ([]string, error) {
	const name = "/proc/thread-self/mountinfo"
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return nil, failed("read", name, unix.EBADMSG)
		}
		point := unescape.Replace(f[4])
		if point == path || strings.HasPrefix(point, strings.TrimSuffix(path, "/")+"/") {
			all = append(all, point)
		}
	}
	slices.Sort(all)
	return all, nil
}

// unescape undoes what the kernel does to paths there (show_mnt_opts() and
// seq_path() in fs/proc_namespace.c).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")

// Attach mounts over path what Open or one of the Clones returned. Over "/" it
// becomes the root of the namespace, and nothing of what was mounted before is
// there any more.
func (p *Private) Attach(m *os.File, path string) error {
	return p.Do(func() error {
		if path == "/" {
			return leave(m)
		}
		return AttachAt(m, path)
	})
}

// Close ends the thread. Children that were started in it go on.
func (p *Private) Close() {
	close(p.quit)
	<-p.ended
}
