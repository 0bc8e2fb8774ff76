package direct

import (
	"errors"
	"os"
	"syscall"

	"stillpoint/internal/sys/flagfile"
)

// attach gets the descriptors.
func (l *line) attach() (Live, error) {
	if err := send(l.conn, append(make([]byte, lengthSize), opAttach)); err != nil {
		return Live{}, err
	}
	var b [1]byte
	rights := make([]byte, syscall.CmsgSpace(2*4)) // two descriptors
	n, size, _, _, err := l.conn.ReadMsgUnix(b[:], rights)
	if err != nil {
		return Live{}, err
	}
	fds, err := descriptors(rights[:size])
	if err == nil && (n != 1 || len(fds) != 2) {
		err = errMessage
	}
	if err != nil {
		return Live{}, errors.Join(err, closeAll(fds))
	}
	mount := os.NewFile(uintptr(fds[0]), "mount")
	flags, err := flagfile.Open(os.NewFile(uintptr(fds[1]), "flags"))
	if err != nil {
		return Live{}, errors.Join(err, mount.Close())
	}
	return Live{mount, flags}, nil
}

// descriptors are those in a control message. Go asks for them to be closed
// when a program is started (MSG_CMSG_CLOEXEC, package net).
func descriptors(control []byte) ([]int, error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range messages {
		some, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

func closeAll(fds []int) error {
	var errs []error
	for _, fd := range fds {
		errs = append(errs, syscall.Close(fd))
	}
	return errors.Join(errs...)
}
