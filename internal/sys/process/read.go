package process

import (
	"bytes"
	"io/fs"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A name is a path that ends in a zero byte, built without allocation.
type name [64]byte

// procPath is /proc/ID/FILE.
func procPath(id int, file string) (n name) {
	b := append(n[:0], "/proc/"...)
	b = strconv.AppendInt(b, int64(id), 10)
	_ = append(append(b, '/'), file...) // the rest is zero
	return n
}

// procNumber is /proc/ID/FILENUMBER.
func procNumber(id int, file string, number int) name {
	n := procPath(id, file)
	n.append(number)
	return n
}

// append puts a number at the end.
func (n *name) append(number int) {
	end := bytes.IndexByte(n[:], 0)
	_ = strconv.AppendInt(n[:end], int64(number), 10)
}

func (n *name) String() string { return unix.ByteSliceToString(n[:]) }

// open opens a path of /proc.
func (n *name) open(flags int) (int, error) { return openAt(unix.AT_FDCWD, &n[0], flags) }

func openAt(dir int, path *byte, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(path)), uintptr(flags|unix.O_CLOEXEC), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// read reads a small file of /proc at once into buf.
func (n *name) read(buf []byte) ([]byte, error) {
	fd, err := n.open(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readFD(fd, buf)
}

func readFD(fd int, buf []byte) ([]byte, error) {
	for {
		k, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return buf[:max(k, 0)], err
		}
	}
}

// A directory lists the numbers that name the entries of one in /proc.
type directory struct {
	fd   int
	buf  []byte
	left []byte
}

// next returns the next number and false at the end. Errors are ends: what is
// listed is gone.
func (d *directory) next() (int, bool) {
	for {
		if len(d.left) == 0 {
			n, err := unix.Getdents(d.fd, d.buf)
			if err != nil || n <= 0 {
				return 0, false
			}
			d.left = d.buf[:n]
		}
		// struct linux_dirent64: inode, offset, length, type, name.
		size := *(*uint16)(unsafe.Pointer(&d.left[16]))
		entry := d.left[:size]
		d.left = d.left[size:]
		if number, ok := decimal(entry[19:]); ok {
			return number, true
		}
	}
}

// decimal parses the number that b begins with and that ends with a zero byte.
func decimal(b []byte) (n int, ok bool) {
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n = n*10 + int(c-'0')
		case c == 0 && i > 0:
			return n, true
		default:
			return 0, false
		}
	}
	return 0, false
}

// field takes the next field off b, which are separated by spaces.
func field(b []byte) (f, rest []byte) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\n') {
		b = b[1:]
	}
	i := 0
	for i < len(b) && b[i] != ' ' && b[i] != '\t' && b[i] != '\n' {
		i++
	}
	return b[:i], b[i:]
}

// number parses digits in base 8, 10 or 16.
func number(b []byte, base uint64) (n uint64) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n = n*base + uint64(c-'0')
		case c >= 'a' && c <= 'f' && base == 16:
			n = n*base + uint64(c-'a'+10)
		default:
			return n
		}
	}
	return n
}

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: object, Err: err}
}
