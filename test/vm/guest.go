package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	mu      sync.Mutex
	last    int64
	waiting map[int64]chan wire.Reply
}

// meet waits for its first word.
func meet(ctx context.Context, socket string, ended <-chan struct{}) (*guest, error) {
	g := &guest{ended: ended, waiting: map[int64]chan wire.Reply{}}
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
	hello := make(chan wire.Reply, 1)
	g.waiting[0] = hello
	go g.listen()
	r, err := g.wait(ctx, hello)
	g.release = string(r.Out)
	return g, err
}

// listen takes the replies until there is no power.
func (g *guest) listen() {
	for from := json.NewDecoder(g.conn); ; {
		var r wire.Reply
		if err := from.Decode(&r); err != nil {
			return
		}
		g.mu.Lock()
		if c := g.waiting[r.ID]; c != nil {
			c <- r
			delete(g.waiting, r.ID)
		}
		g.mu.Unlock()
	}
}

func (g *guest) wait(ctx context.Context, c <-chan wire.Reply) (wire.Reply, error) {
	select {
	case r := <-c:
		return r, nil
	case <-g.ended:
		return wire.Reply{}, errEnded
	case <-ctx.Done():
		return wire.Reply{}, fmt.Errorf("no answer from the machine: %w", ctx.Err())
	}
}

func (g *guest) ask(ctx context.Context, q wire.Request) (wire.Reply, error) {
	c := make(chan wire.Reply, 1)
	g.mu.Lock()
	g.last++
	q.ID = g.last
	g.waiting[q.ID] = c
	end, _ := ctx.Deadline() // or none
	err := errors.Join(g.conn.SetWriteDeadline(end), json.NewEncoder(g.conn).Encode(q))
	g.mu.Unlock()
	if err != nil {
		return wire.Reply{}, errors.Join(errEnded, err)
	}
	r, err := g.wait(ctx, c)
	if err == nil && r.Failure != "" {
		err = errors.New(r.Failure)
	}
	return r, err
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
	if m.qemu == nil {
		return Result{}, errEnded
	}
	limit := 24 * time.Hour
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end) - time.Second // so that it can say so itself
	}
	r, err := m.guest.ask(ctx, wire.Request{Op: wire.Run, Text: script, Limit: limit})
	res := Result{Code: r.Code, Out: string(r.Out), Err: string(r.Err)}
	if err != nil {
		return res, m.failed(script, fmt.Errorf("%w: %s%s", err, res.Out, res.Err))
	}
	return res, nil
}

// Release is that of its kernel.
func (m *Machine) Release() string { return m.guest.release }

// Read returns a file of the machine.
func (m *Machine) Read(ctx context.Context, path string) ([]byte, error) {
	r, err := m.guest.ask(ctx, wire.Request{Op: wire.Read, Text: path})
	return r.Out, err
}

// Write makes a file in the machine.
func (m *Machine) Write(ctx context.Context, path string, data []byte, mode os.FileMode) error {
	_, err := m.guest.ask(ctx, wire.Request{Op: wire.Write, Text: path, Data: data, Mode: uint32(mode.Perm())})
	return err
}
