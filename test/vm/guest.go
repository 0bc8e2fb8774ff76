package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"stillpoint/test/vm/wire"
)

var errEnded = errors.New("the machine has no power any more")

// A guest is our program in a machine that runs.
type guest struct {
	conn    net.Conn
	ended   <-chan struct{}
	release string // of the kernel

	sending sync.Mutex
	mu      sync.Mutex
	next    int64
	waiting map[int64]waiter
}

// A waiter waits for a reply.
type waiter struct {
	more func(wire.Reply) // gets what a script prints meanwhile
	last chan wire.Reply
}

// meet waits for its first word.
func meet(ctx context.Context, socket string, ended <-chan struct{}) (*guest, error) {
	g := &guest{ended: ended, waiting: map[int64]waiter{}}
	for g.conn == nil {
		var err error
		if g.conn, err = net.Dial("unix", socket); err == nil {
			break
		}
		select { // QEMU makes the socket, and a killed one has left it
		case <-time.After(10 * time.Millisecond):
		case <-ended:
			return g, errEnded
		case <-ctx.Done():
			return g, errors.Join(ctx.Err(), err)
		}
	}
	id, hello := g.expect(nil)
	go g.listen()
	r, err := g.wait(ctx, id, hello)
	g.release = string(r.Out)
	return g, err
}

// expect makes room for the reply to the next request, of which the first is the
// guest's own.
func (g *guest) expect(more func(wire.Reply)) (id int64, last <-chan wire.Reply) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id = g.next
	g.next++
	w := waiter{more, make(chan wire.Reply, 1)}
	g.waiting[id] = w
	return id, w.last
}

// listen takes the replies until there is no power.
func (g *guest) listen() {
	for from := json.NewDecoder(g.conn); ; {
		var r wire.Reply
		if err := from.Decode(&r); err != nil {
			return
		}
		g.take(r)
	}
}

func (g *guest) take(r wire.Reply) {
	g.mu.Lock()
	defer g.mu.Unlock() // who does not wait any more gets nothing any more
	w, ok := g.waiting[r.ID]
	switch {
	case !ok:
	case r.More:
		w.more(r)
	default:
		w.last <- r
		delete(g.waiting, r.ID)
	}
}

func (g *guest) wait(ctx context.Context, id int64, last <-chan wire.Reply) (wire.Reply, error) {
	select {
	case r := <-last:
		return r, nil
	case <-g.ended:
		g.forget(id)
		return wire.Reply{}, errEnded
	case <-ctx.Done():
		g.forget(id)
		return wire.Reply{}, fmt.Errorf("no answer from the machine: %w", ctx.Err())
	}
}

func (g *guest) forget(id int64) { g.mu.Lock(); delete(g.waiting, id); g.mu.Unlock() }

func (g *guest) ask(ctx context.Context, q wire.Request, more func(wire.Reply)) (wire.Reply, error) {
	id, last := g.expect(more)
	q.ID = id
	if err := g.send(ctx, q); err != nil {
		g.forget(id)
		return wire.Reply{}, errors.Join(errEnded, err)
	}
	r, err := g.wait(ctx, id, last)
	if err == nil && r.Failure != "" {
		err = errors.New(r.Failure)
	}
	return r, err
}

func (g *guest) send(ctx context.Context, q wire.Request) error {
	g.sending.Lock()
	defer g.sending.Unlock()
	end, _ := ctx.Deadline() // or none
	return errors.Join(g.conn.SetWriteDeadline(end), json.NewEncoder(g.conn).Encode(q))
}

func (g *guest) close() {
	if g != nil && g.conn != nil {
		_ = g.conn.Close()
	}
}

// A Result is how a script ended.
type Result struct {
	Code     int // 128 and the number for a signal
	Out, Err string
}

// Run runs a shell script as root, until ctx is over at the latest.
func (m *Machine) Run(ctx context.Context, script string) (Result, error) {
	var out, errs bytes.Buffer
	code, err := m.Stream(ctx, script, &out, &errs)
	res := Result{Code: code, Out: out.String(), Err: errs.String()}
	if err != nil {
		return res, m.failed(script, fmt.Errorf("%w: %s%s", err, res.Out, res.Err))
	}
	return res, nil
}

// Stream is Run that passes on what the script prints while it does.
func (m *Machine) Stream(ctx context.Context, script string, out, errs io.Writer) (code int, err error) {
	if m.qemu == nil {
		return 0, errEnded
	}
	limit := 24 * time.Hour
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end) - time.Second // so that it can say so itself
	}
	var printed error // nobody reads it
	r, err := m.guest.ask(ctx, wire.Request{Op: wire.Run, Text: script, Limit: limit}, func(r wire.Reply) {
		_, err := out.Write(r.Out)
		_, err2 := errs.Write(r.Err)
		printed = errors.Join(printed, err, err2)
	})
	return r.Code, errors.Join(err, printed)
}

// Release is that of its kernel.
func (m *Machine) Release() string { return m.guest.release }

// Read returns a file of the machine.
func (m *Machine) Read(ctx context.Context, path string) ([]byte, error) {
	r, err := m.guest.ask(ctx, wire.Request{Op: wire.Read, Text: path}, nil)
	return r.Out, err
}

// Write makes a file in the machine.
func (m *Machine) Write(ctx context.Context, path string, data []byte, mode os.FileMode) error {
	_, err := m.guest.ask(ctx, wire.Request{Op: wire.Write, Text: path, Data: data, Mode: uint32(mode.Perm())}, nil)
	return err
}
