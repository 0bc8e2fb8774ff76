package direct

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"

	"stillpoint/internal/snapshot"
)

// Serve answers a Client at the other end of conn until that is closed, and
// closes it.
func Serve(conn *net.UnixConn, h Holder, l Live) error {
	defer conn.Close()
	s := &server{conn, h, l}
	r := bufio.NewReader(conn)
	var in, out []byte
	for {
		b, err := receive(r, in, mostRequest)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		in = b
		m := &message{b: b[1:]}
		if b[0] == opAttach {
			if err := s.attach(); err != nil {
				return err
			}
			continue
		}
		out, err = s.answer(append(out[:0], make([]byte, lengthSize)...), b[0], m)
		if err != nil {
			out = appendError(out[:lengthSize], err)
		}
		if err := send(conn, out); err != nil {
			return err
		}
	}
}

type server struct {
	conn   *net.UnixConn
	holder Holder
	live   Live
}

// attach sends the descriptors.
func (s *server) attach() error {
	rights := syscall.UnixRights(int(s.live.Mount.Fd()), int(s.live.Flags.Memory().Fd()))
	_, _, err := s.conn.WriteMsgUnix([]byte{done}, rights, nil)
	return err
}

// answer puts an answer to b.
func (s *server) answer(b []byte, op byte, m *message) ([]byte, error) {
	b = append(b, done)
	switch op {
	case opTop:
		i, err := s.holder.Top()
		return appendItem(b, &i), err
	case opLookup:
		dir, name := m.number(), m.text()
		if m.err != nil {
			return b, m.err
		}
		i, err := s.holder.Lookup(dir, name)
		return appendItem(b, &i), err
	case opList:
		dir := m.number()
		if m.err != nil {
			return b, m.err
		}
		l, err := s.holder.List(dir)
		return appendListing(b, l), err
	case opDescribe:
		numbers := make([]uint64, m.count())
		for i := range numbers {
			numbers[i] = m.number()
		}
		if m.err != nil {
			return b, m.err
		}
		items, err := s.holder.Describe(numbers)
		return appendItems(b, items), err
	}
	return s.content(b, op, m)
}

func (s *server) content(b []byte, op byte, m *message) ([]byte, error) {
	number := m.number()
	switch op {
	case opRead:
		offset, n := int64(m.number()), m.number()
		if m.err != nil || n > most {
			return b, errMessage
		}
		begin := len(b)
		b = append(b, make([]byte, n)...)
		got, err := s.holder.ReadAt(number, b[begin:], offset)
		return b[:begin+got], err
	case opNext:
		offset, hole := int64(m.number()), m.number() != 0
		if m.err != nil {
			return b, m.err
		}
		at, err := s.holder.Next(number, offset, hole)
		return binary.AppendUvarint(b, uint64(at)), err
	case opVerify:
		if m.err != nil {
			return b, m.err
		}
		return b, s.holder.Verify(number)
	}
	return b, errMessage
}

// Large tells whether a directory has so many names that its Listing is Names.
func Large(names int) bool { return names > mostFull }

var _ Holder = (*Client)(nil)
var _ snapshot.Content = (*content)(nil)
