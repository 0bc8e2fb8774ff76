package cow

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/direct"
	"stillpoint/internal/sys/file"
)

// lending is what readers of a target have in use.
type lending struct {
	mu    sync.Mutex
	conns map[*net.UnixConn]bool
	calls int
	quiet *sync.Cond // told when the last call returns
	over  bool
}

// begin is false when the snapshot is released.
func (l *lending) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.calls++
	return true
}

func (l *lending) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls--; l.calls == 0 && l.quiet != nil {
		l.quiet.Broadcast()
	}
}

// lent notes a connection, which is closed at the end.
func (l *lending) lent(c *net.UnixConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	if l.conns == nil {
		l.conns = map[*net.UnixConn]bool{}
	}
	l.conns[c] = true
	return true
}

func (l *lending) returned(c *net.UnixConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// endTime is how long a call that does not return is waited for.
const endTime = 10 * time.Second

// end lets nobody in any more and waits for those who are.
func (l *lending) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for c := range l.conns {
		c.Close()
	}
	late := false
	l.quiet = sync.NewCond(&l.mu)
	timer := time.AfterFunc(endTime, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		late = true
		l.quiet.Broadcast()
	})
	defer timer.Stop()
	for l.calls > 0 && !late {
		l.quiet.Wait()
	}
	if l.calls > 0 {
		return errors.New("a read of the snapshot does not end")
	}
	return nil
}

// endLending comes before the filter lets everybody pass, of which those who
// read live files must know.
func (t *target) endLending() error {
	t.flags.AddAll()
	return t.lent.end()
}

// Reader reads the snapshot in this process.
func (t *target) Reader(ctx context.Context) (snapshot.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := t.live()
	if err != nil {
		return nil, err
	}
	return direct.New(lender{t}, l, func() error { return nil }), nil
}

// Lend lets another process read it.
func (t *target) Lend(conn *net.UnixConn) error {
	l, err := t.live()
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer l.Mount.Close()
	if !t.lent.lent(conn) {
		return errors.Join(t.Err(), conn.Close())
	}
	defer t.lent.returned(conn)
	return direct.Serve(conn, lender{t}, l)
}

// live opens the mount once more, because the filter may end before the reader
// does.
func (t *target) live() (direct.Live, error) {
	if !t.lent.begin() {
		return direct.Live{}, t.Err()
	}
	defer t.lent.done()
	root := t.filter.root
	fd, err := file.Open(int(root.Fd()), ".", file.Read|file.Directory)
	if err != nil {
		return direct.Live{}, problem.New(problem.SnapshotLost, t.ID(), err)
	}
	return direct.Live{Mount: os.NewFile(uintptr(fd), root.Name()), Flags: t.flags}, nil
}

var _ snapshot.Lender = (*target)(nil)
