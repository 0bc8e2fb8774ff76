package file

import (
	"golang.org/x/sys/unix"
)

// OpenBeneath opens a place below the directory at path root, which may lead
// through links; rel is "." for root itself. Nothing on the way from there may
// be a symbolic link (ELOOP) or lead out, but it may cross mounts. What is
// opened is not touched: it may be of any type (openat2(2), Linux 5.6).
func OpenBeneath(root, rel string) (int, error) {
	dir, err := Open(Here, root, Mode(unix.O_PATH|unix.O_DIRECTORY))
	if err != nil {
		return -1, err
	}
	defer Close(dir)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, rel, &how)
		// EAGAIN: something was renamed meanwhile (openat2(2)).
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return -1, failed("openat2", rel, err)
		}
		return fd, nil
	}
}
