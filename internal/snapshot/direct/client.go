package direct

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// A Client is a Holder in another process. Once that does not answer any more,
// everything fails with the code snapshot-lost.
type Client struct {
	dial func() (*net.UnixConn, error)

	mu   sync.Mutex
	idle []*line
	all  map[*line]bool
	err  error // all is over
}

// A line is one connection, on which one request is under way at a time.
type line struct {
	conn *net.UnixConn
	r    *bufio.Reader
	out  []byte
	in   []byte
}

// Attach makes a Reader of a snapshot that Serve has, at the other end of what
// dial returns. It dials again when several are reading at a time.
func Attach(dial func() (*net.UnixConn, error)) (*Reader, error) {
	c := &Client{dial: dial, all: map[*line]bool{}}
	l, err := c.take()
	if err != nil {
		return nil, err
	}
	live, err := l.attach()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin to read: %w", c.fail(err)), c.close())
	}
	c.give(l)
	return New(c, live, c.close), nil
}

// take returns a line that nobody uses.
func (c *Client) take() (*line, error) {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	if n := len(c.idle); n > 0 {
		defer c.mu.Unlock()
		l := c.idle[n-1]
		c.idle = c.idle[:n-1]
		return l, nil
	}
	c.mu.Unlock()
	conn, err := c.dial()
	if err != nil {
		return nil, c.fail(err)
	}
	l := &line{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		conn.Close()
		return nil, c.err
	}
	c.all[l] = true
	return l, nil
}

func (c *Client) give(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, l)
}

// fail makes the first failure the answer to everything.
func (c *Client) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && errors.Is(err, errors.ErrUnsupported) {
		c.err = err
	}
	if c.err == nil {
		c.err = problem.New(problem.SnapshotLost, "", fmt.Errorf("the process that holds the snapshot does not answer: %w", err))
	}
	return c.err
}

// close ends everything.
func (c *Client) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = os.ErrClosed
	}
	for l := range c.all {
		l.conn.Close() // nothing is written through it
	}
	c.all, c.idle = nil, nil
	return nil
}

// ask sends a request and hands the answer to take.
func (c *Client) ask(request func(b []byte) []byte, answer func(m *message) error) error {
	l, err := c.take()
	if err != nil {
		return err
	}
	l.out = request(append(l.out[:0], make([]byte, lengthSize)...))
	err = send(l.conn, l.out)
	if err == nil {
		l.in, err = receive(l.r, l.in, mostAnswer)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return c.fail(err)
	}
	m := &message{b: l.in[1:]}
	switch kind := l.in[0]; kind {
	case done:
		err = answer(m)
		if m.err != nil {
			return c.fail(m.err)
		}
	case failed, lost:
		err = m.failure(kind)
	default:
		return c.fail(errMessage)
	}
	if cap(l.in) > 4*most {
		l.in = nil
	}
	c.give(l)
	return err
}

// Top asks for the root.
func (c *Client) Top() (i snapshot.Item, err error) {
	err = c.ask(func(b []byte) []byte { return append(b, opTop) }, func(m *message) error { i = m.item(); return nil })
	return i, err
}

// Lookup asks for a name.
func (c *Client) Lookup(dir uint64, name string) (i snapshot.Item, err error) {
	err = c.ask(func(b []byte) []byte { return appendText(appendNumbers(append(b, opLookup), dir), name) },
		func(m *message) error { i = m.item(); return nil })
	return i, err
}

// List asks for a directory.
func (c *Client) List(dir uint64) (all snapshot.Listing, err error) {
	err = c.ask(func(b []byte) []byte { return appendNumbers(append(b, opList), dir) },
		func(m *message) error { all = m.listing(); return nil })
	return all, err
}

// Describe asks for inodes.
func (c *Client) Describe(numbers []uint64) (all []snapshot.Item, err error) {
	err = c.ask(func(b []byte) []byte {
		return appendNumbers(appendNumbers(append(b, opDescribe), uint64(len(numbers))), numbers...)
	},
		func(m *message) error { all = m.items(); return nil })
	if err == nil && len(all) != len(numbers) {
		err = c.fail(errMessage)
	}
	return all, err
}

// ReadAt asks for content.
func (c *Client) ReadAt(number uint64, p []byte, offset int64) (n int, err error) {
	p = p[:min(len(p), most)]
	err = c.ask(func(b []byte) []byte { return appendNumbers(append(b, opRead), number, uint64(offset), uint64(len(p))) },
		func(m *message) error { n = copy(p, m.b); return nil })
	return n, err
}

// Next asks for holes and data.
func (c *Client) Next(number uint64, offset int64, hole bool) (at int64, err error) {
	kind := uint64(0)
	if hole {
		kind = 1
	}
	err = c.ask(func(b []byte) []byte { return appendNumbers(append(b, opNext), number, uint64(offset), kind) },
		func(m *message) error { at = int64(m.number()); return nil })
	return at, err
}

// Verify asks whether what was read is of the instant.
func (c *Client) Verify(number uint64) error {
	return c.ask(func(b []byte) []byte { return appendNumbers(append(b, opVerify), number) }, func(*message) error { return nil })
}
