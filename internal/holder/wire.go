package holder

import (
	"fmt"
	"net"
	"syscall"
)

// read reads a message.
func read(c *net.UnixConn) (message, []int, error) {
	b, rights := make([]byte, fixed+nameMost), make([]byte, 64)
	n, nr, _, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		return message{}, nil, err
	}
	files := descriptors(rights[:nr])
	for _, fd := range files {
		syscall.CloseOnExec(fd)
	}
	m, err := parse(b[:n])
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

// reply waits for the answer with the number seq.
func reply(c *net.UnixConn, seq uint32) (message, error) {
	for {
		m, files, err := read(c)
		closeAll(files)
		if err != nil || m.op == opReply && m.seq == seq {
			return m, err
		}
	}
}

func lost(err error) error { return fmt.Errorf("%w: %w", ErrGone, err) }
