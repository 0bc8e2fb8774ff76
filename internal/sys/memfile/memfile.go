// Package memfile makes files that live in memory only, for libraries that
// insist on a path: nothing of them is left after a kill -9.
package memfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// New returns a file holding data. Path gives a path at which this process can
// open it while it is not closed.
func New(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Path is where this process can open f anew.
func Path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
