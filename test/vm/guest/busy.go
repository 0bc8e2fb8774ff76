package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	logs     = 8                // files that records are appended to in turn, all held open
	slots    = 256              // of the ring, which is overwritten in turn
	slotSize = 4096             // bytes
	socket   = "/run/busy.sock" // where figures are told
	pause    = 2 * time.Millisecond
)

// figures are what busy has done.
type figures struct {
	Records, Payments int64     // by now
	LongestMS         float64   // that a write took since the last time, one under way counted so far
	LongestAt         time.Time // when that began
	SyncMS            float64   // the same of a payment, which waits for the disk several times
}

// A clock measures how long things take.
type clock struct {
	mu      sync.Mutex
	began   time.Time // zero while nothing is under way
	longest time.Duration
	at      time.Time // when that began
}

func (c *clock) start() { c.mu.Lock(); c.began = time.Now(); c.mu.Unlock() }

func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
	c.began = time.Time{}
}

// count notes the time until now.
func (c *clock) count() {
	if took := time.Since(c.began); !c.began.IsZero() && took > c.longest {
		c.longest, c.at = took, c.began
	}
}

// lap returns the longest since the last lap, in ms, and when that began.
func (c *clock) lap() (ms float64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
	ms, at = float64(c.longest.Microseconds())/1000, c.at
	c.longest = 0
	return ms, at
}

type writers struct {
	records, payments atomic.Int64
	write, sync       clock
}

// busy writes numbered records and makes payments in a database, both below
// dir, and tells at the socket how that goes.
func busy(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := openBank(ctx, filepath.Join(dir, "bank.sqlite"))
	if err != nil {
		return err
	}
	defer b.close()
	w := &writers{}
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return w.record(ctx, dir) },
		func() error { return w.pay(ctx, b) },
		func() error { return w.tell(l) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	l.Close()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// record appends the numbers 1, 2, 3 … to files that stay open, and writes each
// into its slot of the ring afterwards. At any moment the records are there
// without a gap, and the ring shows the newest of each slot, of the last record
// perhaps not yet.
func (w *writers) record(ctx context.Context, dir string) error {
	var files [logs]*os.File
	for i := range files {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("log.%d", i)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	ring, err := os.OpenFile(filepath.Join(dir, "ring"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer ring.Close()
	slot := make([]byte, slotSize)
	for n := int64(1); ctx.Err() == nil; n++ {
		w.write.start()
		_, err := fmt.Fprintf(files[n%logs], "%d\n", n)
		if err == nil {
			copy(slot, fmt.Sprintf("%d\n", n))
			_, err = ring.WriteAt(slot, n%slots*slotSize)
		}
		w.write.stop()
		if err != nil {
			return err
		}
		w.records.Store(n)
		time.Sleep(pause)
	}
	return nil
}

func (w *writers) pay(ctx context.Context, b *bank) error {
	for n := int64(1); ctx.Err() == nil; n++ {
		w.sync.start()
		err := b.pay(n)
		w.sync.stop()
		if err != nil {
			return err
		}
		w.payments.Store(n)
		time.Sleep(10 * pause)
	}
	return nil
}

// tell answers each connection with the figures.
func (w *writers) tell(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		f := figures{Records: w.records.Load(), Payments: w.payments.Load()}
		f.LongestMS, f.LongestAt = w.write.lap()
		f.SyncMS, _ = w.sync.lap()
		_ = json.NewEncoder(c).Encode(f)
		_ = c.Close()
	}
}

func printFigures() error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(os.Stdout, c)
	return err
}
