package holder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// version is that of the messages between a holder and the next agent. It
// changes with them, and with what becomes of a filter.
const version = "stillpoint-holder/1"

// An op is what a message says. Each is one message of a SEQPACKET socket.
type op uint32

// What an agent says to its holder. All but opBeat are answered with opReply.
const (
	opReply  op = iota // a: errno. That of number 0 comes by itself first, with a handle of the holder
	opKeep             // name, a: since, b: how many descriptors the agent can have; the next message, opFiles, has group and mount
	opFiles            // what opKeep announced
	opForget           // name
	opBeat             // a: whether something waits, b: the highest descriptor of an event so far
	opEnd              // the holder ends
)

// What the next agent says, and what it is told.
const (
	opHello  op = 100 + iota // name: the version; answered in kind, a: errno
	opTake                   // answered with opFilter for each, with group and mount, and opAll
	opFilter                 // name, a: since
	opAll
	opTaken // the holder ends
)

// A message is the fixed part, and then the name.
type message struct {
	op   op
	seq  uint32
	a, b uint64
	name string
}

const (
	fixed    = 24
	nameMost = 512
)

var native = binary.NativeEndian

func (m *message) bytes() []byte {
	b := make([]byte, fixed, fixed+len(m.name))
	native.PutUint32(b, uint32(m.op))
	native.PutUint32(b[4:], m.seq)
	native.PutUint64(b[8:], m.a)
	native.PutUint64(b[16:], m.b)
	return append(b, m.name...)
}

func parse(b []byte) (m message, err error) {
	if len(b) < fixed || len(b) > fixed+nameMost {
		return m, fmt.Errorf("a message of %d bytes", len(b))
	}
	return message{op(native.Uint32(b)), native.Uint32(b[4:]), native.Uint64(b[8:]), native.Uint64(b[16:]), string(b[fixed:])}, nil
}

// since is a filter's age as a message has it.
func since(t time.Time) uint64 { return uint64(t.UnixNano()) }

func sinceOf(n uint64) time.Time { return time.Unix(0, int64(n)) }

// send sends a message with descriptors and does not wait.
func send(fd int, m message, files ...int) error {
	var rights []byte
	if len(files) > 0 {
		rights = syscall.UnixRights(files...)
	}
	b := m.bytes()
	for {
		err := syscall.Sendmsg(fd, b, rights, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err
		}
	}
}

// descriptors are those that came with a message.
func descriptors(rights []byte) []int {
	if len(rights) == 0 {
		return nil
	}
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	var all []int
	for i := range messages {
		if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	return syscall.EIO
}
