package hot

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	if os.Getenv(roleVariable) == "first-ended" {
		runtime.LockOSThread() // the main goroutine stays in the first thread
	}
}

// play does what a role needs, says that it is ready, and waits.
func play(role, dir string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	switch role {
	case "open":
		openFile(in("a"), os.O_RDWR)
		openFile(in("b"), os.O_WRONLY|os.O_APPEND)
		openFile(in("c"), os.O_RDONLY)
		openFile(in("d"), unix.O_PATH)
		openFile(dir, os.O_RDONLY)
		openFile(in("e"), os.O_WRONLY|os.O_CREATE)
		openFile("/dev/null", os.O_RDWR)
		_ = os.Remove(in("e"))
		_ = os.WriteFile(in("e"), nil, 0o600)
	case "map":
		mapped(in("a"), os.O_RDWR, 4096, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		mapped(in("b"), os.O_RDWR, 0, 64<<10, unix.PROT_READ, unix.MAP_SHARED)
		mapped(in("c"), os.O_RDONLY, 0, 64<<10, unix.PROT_READ, unix.MAP_SHARED)
		mapped(in("d"), os.O_RDWR, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		must2(os.WriteFile(in("g"), make([]byte, 64<<10), 0o600))
		mapped(in("g"), os.O_RDWR, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		_ = os.Remove(in("g"))
	case "thread":
		done := make(chan bool)
		go func() {
			runtime.LockOSThread()
			must2(unix.Unshare(unix.CLONE_FILES))
			openFile(in("a"), os.O_RDWR)
			done <- true
			select {}
		}()
		<-done
	case "first-ended":
		openFile(in("a"), os.O_RDWR)
		mapped(in("b"), os.O_RDWR, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		go wait()
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	case "ring":
		must2(os.WriteFile(in("with space"), nil, 0o600))
		ring(false, in("a"), "/dev/null", in("with space"))
	case "ring-closed":
		ring(true, in("a"))
	case "ring-deleted":
		ring(false, in("h"))
	case "elsewhere":
		elsewhere(dir)
	}
	wait()
}

func wait() {
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

func must2(err error) {
	if err != nil {
		panic(err)
	}
}

// openFile stays open.
func openFile(path string, flags int) int {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	must2(err)
	return fd
}

// mapped stays mapped, and is closed.
func mapped(path string, flags int, offset int64, length, prot, how int) {
	fd := openFile(path, flags)
	_, err := unix.Mmap(fd, offset, length, prot, how)
	must2(err)
	must2(unix.Close(fd))
}

// ring registers files with a new ring and closes them, and the ring, too, if
// that is wanted: it stays as long as it is mapped.
func ring(closed bool, paths ...string) {
	params := make([]byte, 120) // struct io_uring_params, linux/io_uring.h
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		panic(errno)
	}
	var fds []byte
	for _, p := range paths {
		fds = binary.NativeEndian.AppendUint32(fds, uint32(openFile(p, os.O_RDWR)))
	}
	const registerFiles = 2
	if _, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, r, registerFiles, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(paths)), 0, 0); errno != 0 {
		panic(errno)
	}
	for ; len(fds) > 0; fds = fds[4:] {
		must2(unix.Close(int(binary.NativeEndian.Uint32(fds))))
	}
	_, err := unix.Mmap(int(r), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	must2(err)
	if closed {
		must2(unix.Close(int(r)))
	}
}

// elsewhere changes the volume in a mount namespace in which it is mounted at
// a place of its own, with two overlays: the upper directory of one is where
// only others see it, that of the other one where only we do.
func elsewhere(dir string) {
	must2(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must2(unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""))
	for _, d := range []string{dir + "/upper1", dir + "/work1", dir + "/upper2", dir + "/work2", "/mnt/own", "/mnt/1", "/mnt/2", "/mnt/empty"} {
		must2(os.MkdirAll(d, 0o700))
	}
	must2(unix.Mount(dir, "/mnt/own", "", unix.MS_BIND, ""))
	for i, base := range []string{dir, "/mnt/own"} {
		must2(unix.Mount("overlay", fmt.Sprint("/mnt/", i+1), "overlay", 0,
			fmt.Sprintf("lowerdir=/mnt/empty,upperdir=%s/upper%d,workdir=%s/work%d,userxattr", base, i+1, base, i+1)))
	}
	must2(unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	openFile("/mnt/own/a", os.O_RDWR)
}

// watch makes files that are opened from now on such that make events.
func watch(t *testing.T, dir string) {
	t.Helper()
	group, err := unix.FanotifyInit(unix.FAN_CLASS_PRE_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(group) })
	for _, flags := range []uint{unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM,
		unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM | unix.FAN_MARK_IGNORE_SURV} {
		must(t, unix.FanotifyMark(group, flags, unix.FAN_ACCESS_PERM, unix.AT_FDCWD, dir))
	}
}
