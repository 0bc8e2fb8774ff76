package file

import (
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Xattrs reads extended attributes by directory and name. The zero value is
// ready; it remembers when the kernel is too old for the calls that take a
// directory (before 6.13), and goes by /proc then, which takes three times as
// long. It may be used by several goroutines.
type Xattrs struct {
	byProc atomic.Bool
}

// Values and lists are at most this long (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const xattrMax = 65536

// Most lists and values fit here. The kernel allocates what it is offered.
const xattrUsual = 1024

// List returns the names of the extended attributes of name in dir.
func (x *Xattrs) List(dir int, name string, at At) ([]string, error) {
	var small [xattrUsual]byte
	buf := small[:]
	n, err := x.list(dir, name, at, buf)
	if err == unix.ERANGE {
		buf = make([]byte, xattrMax)
		n, err = x.list(dir, name, at, buf)
	}
	if err != nil {
		return nil, failed("listxattr", name, err)
	}
	return xattrNames(buf[:n]), nil
}

// Get returns the value of one extended attribute of name in dir.
func (x *Xattrs) Get(dir int, name string, at At, attribute string) ([]byte, error) {
	var small [xattrUsual]byte
	buf := small[:]
	n, err := x.get(dir, name, at, attribute, buf)
	if err == unix.ERANGE {
		buf = make([]byte, xattrMax)
		n, err = x.get(dir, name, at, attribute, buf)
	}
	if err != nil {
		return nil, failed("getxattr", attribute, err)
	}
	return append(make([]byte, 0, n), buf[:n]...), nil
}

func (x *Xattrs) list(dir int, name string, at At, buf []byte) (int, error) {
	if !x.byProc.Load() {
		n, err := listxattrat(dir, name, at, buf)
		if !x.missing(err) {
			return n, err
		}
	}
	if at&NoFollow != 0 {
		return unix.Llistxattr(procPath(dir, name), buf)
	}
	return unix.Listxattr(procPath(dir, name), buf)
}

func (x *Xattrs) get(dir int, name string, at At, attribute string, buf []byte) (int, error) {
	if !x.byProc.Load() {
		n, err := getxattrat(dir, name, at, attribute, buf)
		if !x.missing(err) {
			return n, err
		}
	}
	if at&NoFollow != 0 {
		return unix.Lgetxattr(procPath(dir, name), attribute, buf)
	}
	return unix.Getxattr(procPath(dir, name), attribute, buf)
}

// xattrNames takes a list apart: names, each ended by a NUL.
func xattrNames(list []byte) []string {
	if len(list) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
}

// missing tells whether a call failed because it does not exist. EPERM may
// come from a seccomp filter that does not know it, so the old call decides.
func (x *Xattrs) missing(err error) bool {
	if err == unix.ENOSYS {
		x.byProc.Store(true)
	}
	return err == unix.ENOSYS || err == unix.EPERM
}

// procPath is a path that leads to name in dir and can be no longer than one
// component more than that of the descriptor.
func procPath(dir int, name string) string {
	switch {
	case dir == Here:
		return name
	case name == "":
		return "/proc/self/fd/" + strconv.Itoa(dir)
	}
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

func listxattrat(dir int, name string, at At, buf []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(p)),
		uintptr(at), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// xattrArgs is struct xattr_args of linux/xattr.h; the address has 64 bits
// everywhere.
type xattrArgs struct {
	value *byte
	_     [8 - unsafe.Sizeof(uintptr(0))]byte
	size  uint32
	flags uint32
}

func getxattrat(dir int, name string, at At, attribute string, buf []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	a, err := unix.BytePtrFromString(attribute)
	if err != nil {
		return 0, err
	}
	args := xattrArgs{value: &buf[0], size: uint32(len(buf))}
	n, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(p)),
		uintptr(at), uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
