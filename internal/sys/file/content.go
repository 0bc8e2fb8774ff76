package file

import (
	"golang.org/x/sys/unix"
)

// ReadAt reads once from offset; it may read less than asked, and 0 bytes at
// the end.
func ReadAt(fd int, p []byte, offset int64) (int, error) {
	for {
		n, err := unix.Pread(fd, p, offset)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, failed("pread", "", err)
		}
	}
}

// WriteAt writes all of p at offset.
func WriteAt(fd int, p []byte, offset int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(fd, p[done:], offset+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, failed("pwrite", "", err)
		}
		done += n
	}
	return done, nil
}

// Truncate sets the size of fd; what is added reads as zeros.
func Truncate(fd int, size int64) error {
	for {
		if err := unix.Ftruncate(fd, size); err != unix.EINTR {
			return result("ftruncate", "", err)
		}
	}
}

// SyncData writes the content of fd to its device, and of its attributes those
// that are needed to read it.
func SyncData(fd int) error {
	for {
		if err := unix.Fdatasync(fd); err != unix.EINTR {
			return result("fdatasync", "", err)
		}
	}
}

// NextData returns where the first data at or after offset begins. It fails
// with ENXIO where there is none up to the end of the file.
func NextData(fd int, offset int64) (int64, error) {
	return seek(fd, offset, unix.SEEK_DATA)
}

// NextHole returns where the first hole at or after offset begins; the end of
// the file counts as one.
func NextHole(fd int, offset int64) (int64, error) {
	return seek(fd, offset, unix.SEEK_HOLE)
}

func seek(fd int, offset int64, whence int) (int64, error) {
	for {
		n, err := unix.Seek(fd, offset, whence)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, failed("lseek", "", err)
		}
	}
}
