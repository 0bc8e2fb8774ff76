//go:build vm

package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// numberOf is that of a node.
func numberOf(tb testing.TB, node string) dm.Number {
	tb.Helper()
	b, err := os.ReadFile("/sys/block/" + filepath.Base(node) + "/dev")
	if err != nil {
		tb.Fatal(err)
	}
	n, err := dm.ParseNumber(strings.TrimSpace(string(b)))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// above are linear devices on plain ones, and the last of these.
func above(lower *dm.Number) kind {
	return func(tb testing.TB, dir string, n int, size int64) (nodes []string) {
		c := control(tb)
		for _, over := range plain(tb, dir, n, size) {
			*lower = numberOf(tb, over)
			d, err := c.Create(name("above"), "")
			if err == nil {
				tb.Cleanup(func() {
					if err := removeDevice(c, d); err != nil {
						tb.Error(err)
					}
				})
				err = c.Load(d.Number, []dm.Target{{Length: uint64(size) << 11, Type: "linear", Params: lower.String() + " 0"}}, false)
			}
			if err == nil {
				err = c.Resume(d.Number, 0)
			}
			if err != nil {
				tb.Fatal(err)
			}
			nodes = append(nodes, d.Node())
		}
		return nodes
	}
}

// stick lets the disk below the volume not answer any more, with a write under way
// that ends after the call of the function.
func (r *rig) stick(lower dm.Number) (goOn func()) {
	c := control(r)
	origin, err := nearest(r.vs[0].Volume)
	r.must(err)
	f, err := os.Create(r.path("waits"))
	r.must(err)
	write := func() error {
		_, err := f.WriteAt(make([]byte, 64<<10), 0)
		return errors.Join(err, f.Sync())
	}
	r.must(write())
	r.must(c.Suspend(lower))
	r.Cleanup(func() { _ = c.Resume(lower, 0) })
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(write(), f.Close()) }()
	r.await("a write that is under way", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/inflight", origin))
		return err == nil && strings.Trim(string(b), "0 \t\n") != ""
	})
	return func() {
		r.Helper()
		r.must(c.Resume(lower, 0))
		r.must(<-ended)
	}
}

// Who waits for a disk that does not answer goes on waiting, and nobody waits for
// us.
func TestStuckDisk(t *testing.T) {
	var lower dm.Number
	r := newRig(t, above(&lower), "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	goOn := r.stick(lower)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		s, err := r.try()
		if err == nil {
			err = errors.Join(errors.New("it was taken"), s.Release(ctx))
		}
		failed <- err
	}()
	select {
	case err := <-failed:
		if !errors.Is(err, dm.ErrSlow) {
			t.Errorf("it ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("it waits for the disk, too")
	}
	if d, err := c.Status(number); err != nil || d.Suspended || d.Loaded {
		t.Errorf("afterwards the device is %+v, %v", d, err)
	}
	goOn()
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
	r.must(r.take().Err())
}

// A process that was killed between the two calls of an exchange has left its table
// in the slot: it is taken away with all else.
func TestKilledInExchange(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	o := origin{c, number}
	real, err := o.lay()
	r.must(err)
	table, err := c.Table(number)
	r.must(err)
	load := func() { r.must(c.Load(number, ours(dm.Sectors(table), real.Number), false)) }
	load()
	left, err := r.p.Leftovers(t.Context())
	r.must(err)
	if len(left) != 1 {
		t.Fatalf("%d leftovers", len(left))
	}
	r.must(left[0].Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
	// Or by the next who needs the place.
	real, err = o.lay()
	r.must(err)
	load()
	s := r.take()
	r.must(s.Err())
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A table that another program has loaded, and is about to make live, stays.
func TestLoadedByAnother(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	other := []dm.Target{{Length: 8, Type: "zero"}}
	r.must(c.Load(number, other, false))
	if _, err := r.try(); problem.CodeOf(err) != problem.Busy {
		t.Errorf("got %v", err)
	}
	if is, err := c.Waiting(number); err != nil || !slices.Equal(is, other) {
		t.Errorf("in the slot is %v, %v", is, err)
	}
	r.must(c.Clear(number))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
	// Nor is it taken away when a snapshot ends, which then waits for that.
	s := r.take()
	r.must(c.Load(number, other, false))
	if err := s.Release(t.Context()); problem.CodeOf(err) != problem.Busy {
		t.Errorf("released: %v", err)
	}
	if is, err := c.Waiting(number); err != nil || !slices.Equal(is, other) {
		t.Errorf("in the slot is %v, %v", is, err)
	}
	r.must(c.Clear(number))
	r.await("the end of the snapshot, with no other call", func() bool { return describe(t, nil) == was })
	r.must(s.Release(t.Context()))
}

// A signal that comes while an exchange waits for what is under way, as those come by which
// Go interrupts its threads, is not the end of it.
func TestSignalInExchange(t *testing.T) {
	var lower dm.Number
	r := newRig(t, above(&lower), "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	o := origin{c, number}
	own, err := c.Table(number)
	r.must(err)
	real, err := o.lay()
	r.must(err)
	for _, table := range [][]dm.Target{ours(dm.Sectors(own), real.Number), own} {
		goOn := r.stick(lower)
		r.must(c.Load(number, table, false))
		// One call, which is not tried again.
		asked := make(chan error, 1)
		go func() { asked <- dm.Within(time.Minute, func() error { return c.Resume(number, 0) }) }()
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && len(asked) == 0; time.Sleep(5 * time.Millisecond) {
			interruptAll(t)
		}
		goOn()
		r.must(<-asked)
		if is, err := c.Table(number); err != nil || !slices.Equal(is, table) {
			t.Errorf("its table is %v, %v", is, err)
		}
	}
	r.must(o.restore())
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// interruptAll sends all threads the signal by which Go's runtime interrupts one.
func interruptAll(tb testing.TB) {
	tb.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range all {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG) // or it has ended
		}
	}
}
