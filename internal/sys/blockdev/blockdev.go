// Package blockdev asks the kernel about mounted file systems and block
// devices: which mount shows a path, how large a file system is, which UUID
// and label it has (from the file system itself, or from its superblock on the
// device), and what a GPT says about a partition. It changes nothing, and it
// does not know what the answers are for. A call may block for as long as the
// file system or device does not answer: waiting is the caller's matter.
package blockdev

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A FileSystem is what a mounted file system says about itself.
type FileSystem struct {
	Size  uint64 // bytes
	Free  uint64 // bytes that an unprivileged writer may use
	Used  uint64 // bytes
	UUID  string // lower case; empty where the file system has none or does not tell
	Label string // likewise
	Final bool   // an empty UUID means that there is none
}

// ErrOtherMount says that a path is shown by another mount than expected.
var ErrOtherMount = fmt.Errorf("another mount shows this path")

// Locate returns the path that the kernel gives for what path leads to,
// symbolic links followed, and the ID of the mount that shows it; 0 where the
// kernel does not tell (before Linux 5.8). It opens with O_PATH, which asks
// nothing of the file itself and does not trigger an automount at its end.
func Locate(path string) (canonical string, mount int, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	canonical, err = os.Readlink(descriptorPath(fd))
	if err != nil {
		return "", 0, err
	}
	if bare, ok := strings.CutSuffix(canonical, " (deleted)"); ok && !leadsTo(canonical, fd) {
		if !leadsTo(bare, fd) {
			return "", 0, &os.PathError{Op: "open", Path: path, Err: unix.ENOENT}
		}
		canonical = bare // a bind mount of what was deleted since
	}
	if !strings.HasPrefix(canonical, "/") {
		return "", 0, fmt.Errorf("%s leads to %q, which is no path", path, canonical)
	}
	return canonical, mountID(fd), nil
}

// leadsTo reports whether path leads to the file of a descriptor. "(deleted)"
// at the end of a path may be the kernel's remark or a part of the name.
func leadsTo(path string, fd int) bool {
	var want, have unix.Stat_t
	return unix.Fstat(fd, &want) == nil && unix.Lstat(path, &have) == nil &&
		want.Dev == have.Dev && want.Ino == have.Ino
}

// Ask asks the file system that the mount shows at path. It fails with
// ErrOtherMount when another mount has covered it.
func Ask(path string, mount int) (FileSystem, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return FileSystem{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if id := mountID(fd); id != 0 && id != mount {
		return FileSystem{}, &os.PathError{Op: "open", Path: path, Err: ErrOtherMount}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return FileSystem{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	fs := FileSystem{Size: st.Blocks * unit, Free: st.Bavail * unit, Used: (st.Blocks - st.Bfree) * unit}
	fs.identify(fd)
	return fs, nil
}

// The ioctls of linux/fs.h and linux/btrfs.h that golang.org/x/sys/unix lacks.
const (
	fsIOCGetFSUUID  = 0x80111500 // _IOR(0x15, 0, struct fsuuid2), Linux 6.9
	fsIOCGetFSLabel = 0x81009431 // _IOR(0x94, 49, char[256]), Linux 4.18
	btrfsIOCFSInfo  = 0x8400941f // _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
)

// identify asks the file system of an O_PATH descriptor for UUID and label.
// Only what can be opened without consequences is opened: directories and
// regular files, without waiting for a lease.
func (fs *FileSystem) identify(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFDIR && kind != unix.S_IFREG {
		return
	}
	f, err := unix.Open(descriptorPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer unix.Close(f)

	var generic struct {
		length uint8
		uuid   [16]byte
	}
	var btrfs struct {
		maxID, devices uint64
		fsid           [16]byte
		_              [1024 - 32]byte
	}
	switch {
	case ioctl(f, fsIOCGetFSUUID, unsafe.Pointer(&generic)) == nil && generic.length == 16:
		fs.UUID, fs.Final = formatUUID(generic.uuid[:]), true
	case ioctl(f, btrfsIOCFSInfo, unsafe.Pointer(&btrfs)) == nil:
		fs.UUID, fs.Final = formatUUID(btrfs.fsid[:]), true
	}
	var name [256]byte
	if ioctl(f, fsIOCGetFSLabel, unsafe.Pointer(&name)) == nil {
		fs.Label = text(name[:])
	}
}

// mountID returns the ID that mountinfo has for the mount of a descriptor, or
// 0. A network file system is not asked.
func mountID(fd int) int {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return int(st.Mnt_id)
}

func descriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// formatUUID writes 16 bytes as a UUID. All zero is no UUID: mke2fs -U clear
// and some image builders leave it so.
func formatUUID(b []byte) string {
	if len(bytes.Trim(b, "\x00")) == 0 {
		return ""
	}
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// text is a string up to the first NUL.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
