package holder

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"stillpoint/internal/sys/process"
	"stillpoint/internal/tool"
)

// Start starts a holder. The next agent finds it by a socket at path, in the
// place of an earlier one; it is waited for as long as alone says. With no path
// there will be no next one. When Start returns, the holder is ready.
func Start(path string, alone time.Duration) (_ *Holder, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start holder: %w", err)
		}
	}()
	door, err := bind(path)
	if err != nil {
		return nil, err
	}
	defer door.Close()
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	h := &Holder{socket: ours, relieve: func() {}, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			h.discard()
		}
	}()
	me, err := process.Handle()
	if err != nil {
		return nil, err
	}
	defer me.Close()
	sentinel, relieve, err := process.Sentinel()
	if err != nil {
		return nil, err
	}
	defer sentinel.Close()
	h.relieve = relieve
	// Its other end is closed when the holder has disarmed, or is gone.
	disarmed, quiet, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer quiet.Close()
	h.disarmed = disarmed
	if h.process, err = tool.Self(programName, environment(alone), theirs, me, sentinel, door, quiet); err != nil {
		return nil, err
	}
	go func() {
		_ = h.process.Wait()
		close(h.gone)
	}()
	return h, h.greet()
}

// bind makes the socket for the next agent, which the holder will listen on: by
// that the kernel knows who is at its end.
func bind(path string) (*os.File, error) {
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "bind", Path: path, Err: err}
	}
	if path == "" {
		return f, nil // the kernel has found a name that is no file (autobind, unix(7))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func pair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "holder")
	f := os.NewFile(uintptr(pair[0]), "holder")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// greet waits for the first message.
func (h *Holder) greet() error {
	if err := h.socket.SetReadDeadline(time.Now().Add(5 * answerTime)); err != nil {
		return err
	}
	m, files, err := read(h.socket)
	if err == nil && (m.op != opReply || m.seq != 0 || len(files) != 1) {
		closeAll(files)
		err = errors.New("it does not begin as it should")
	}
	if err != nil {
		return lost(err)
	}
	h.handle = os.NewFile(uintptr(files[0]), "holder")
	if m.a != 0 {
		h.unlocked = syscall.Errno(m.a)
	}
	return nil
}
