package blockdev

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Open opens the block device at path for reading, if it has the number
// "MAJOR:MINOR".
func Open(path, number string) (*os.File, error) { return openDevice(path, number) }

// ReadOnly tells whether the kernel refuses all writes to a device, those of a
// file system on it, too.
func ReadOnly(f *os.File) (bool, error) {
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	runtime.KeepAlive(f)
	if err != nil {
		return false, &os.PathError{Op: "BLKROGET", Path: f.Name(), Err: err}
	}
	return n != 0, nil
}

// Carries tells whether the file system that f lies on is on the device with
// the number "MAJOR:MINOR". It is for file systems that are on one device.
func Carries(number string, f *os.File) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	runtime.KeepAlive(f)
	if err != nil {
		return false, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)) == number, nil
}
