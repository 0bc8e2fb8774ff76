package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
)

// listen takes the socket for us alone. unlock gives it back.
func listen(socket string) (_ net.Listener, unlock func(), err error) {
	defer func() {
		if err != nil && problem.CodeOf(err) == problem.Uncatalogued {
			code := problem.NoAgent
			if errors.Is(err, fs.ErrPermission) {
				code = problem.NotAllowed
			}
			err = problem.New(code, socket, fmt.Errorf("cannot listen here: %w", err))
		}
	}()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, nil, err
	}
	// The lock ends with the process, a socket does not.
	lock, err := os.OpenFile(socket+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil, problem.Newf(problem.Busy, socket, "another agent answers here")
		}
		return nil, nil, err
	}
	if fi, err := os.Lstat(socket); err == nil {
		if fi.Mode().Type() != os.ModeSocket {
			return nil, nil, problem.Newf(problem.Usage, socket, "there is a file, and it is no socket")
		}
		if err := os.Remove(socket); err != nil {
			return nil, nil, err
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, func() {
		l.Close() // which removes the socket, if Serve has not done so
		// The file stays: who has opened it meanwhile must lock the same one.
		lock.Close()
	}, nil
}

// Notify tells systemd how this service is, if it is one (sd_notify(3)).
func Notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if rest, abstract := strings.CutPrefix(name, "@"); abstract {
		name = "\x00" + rest
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
