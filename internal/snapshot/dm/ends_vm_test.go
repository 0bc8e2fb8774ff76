//go:build vm

package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
)

// A reader reads a device again and again, past all caches, and notes when it waits.
type reader struct {
	quit, ended chan struct{}
	err         error
	reads       int
	waits       []wait // of over 100 ms
	longest     time.Duration
}

type wait struct {
	began time.Time
	took  time.Duration
}

func (r *rig) reads(node string) *reader {
	f := r.direct(node)
	w := &reader{quit: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer f.Close()
		for b := aligned(); w.err == nil; w.reads++ {
			select {
			case <-w.quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			_, w.err = f.ReadAt(b, 0)
			took := time.Since(began)
			if w.longest = max(w.longest, took); took > idle/3 {
				w.waits = append(w.waits, wait{began, took})
			}
		}
	}()
	r.Cleanup(sync.OnceFunc(func() {
		select {
		case <-w.quit:
		default:
			close(w.quit)
		}
	}))
	return w
}

func (w *reader) end() {
	close(w.quit)
	<-w.ended
}

// stalls are how often it waited for over 300 ms, and the machine did not let another one wait
// at that time.
func (w *reader) stalls(machine *reader) (n int) {
	for _, a := range w.waits {
		both := slices.ContainsFunc(machine.waits, func(b wait) bool {
			return a.began.Before(b.began.Add(b.took)) && b.began.Before(a.began.Add(a.took))
		})
		if a.took > idle && !both {
			n++
		}
	}
	return n
}

func (r *rig) direct(node string) *os.File {
	r.Helper()
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_DIRECT, 0)
	r.must(err)
	return f
}

// aligned is memory that O_DIRECT takes.
func aligned() []byte {
	const size = 4096
	b := make([]byte, 2*size)
	return b[size-int(uintptr(unsafe.Pointer(&b[0]))%size):][:size]
}

// While the end of one snapshot hangs, who reads the volume waits for nothing that others
// do: neither for one more that ends, nor for one that is to be taken.
func TestOthersWhileEndHangs(t *testing.T) {
	vs := volumes(t, linear, "ext4", 3, 400)
	in := func(dir string) *rig {
		p, err := New(host).WithCache(snapshot.CacheChoice{Dir: dir})
		r := &rig{t, vs[:1], p}
		r.must(err)
		return r
	}
	r, other := in(vs[1].Dir), in(vs[2].Dir)
	c := control(t)
	on, err := nearest(vs[1].Volume)
	r.must(err)
	r.ends("a write", r.writes("a"))
	was := describe(t, nil)
	hangs, healthy := r.take().(*target), other.take().(*target)
	r.must(c.Suspend(on))
	defer func() { _ = c.Resume(on, 0) }()
	written := r.writes("b")
	r.await("a write that is under way", func() bool { return r.isBusy(hangs.origin.number) })
	released := make(chan error, 1)
	go func() { released <- hangs.Release(context.Background()) }()
	r.await("the end of the snapshot", func() bool {
		table, err := c.Table(hangs.snap.Number)
		return err == nil && isError(table)
	})
	live, machine := r.reads(vs[0].Volume.Source), r.reads(vs[2].Volume.Source)
	if err := healthy.Release(t.Context()); !problem.Is(err, problem.ReleaseFailed) || !problem.Is(err, problem.Busy) {
		t.Errorf("the other one is released: %v", err)
	}
	if _, err := other.try(); problem.CodeOf(err) != problem.Busy {
		t.Errorf("one more is taken: %v", err)
	}
	time.Sleep(2 * again) // in which the release is tried again
	live.end()
	machine.end()
	t.Logf("%d reads, the longest took %v; of another volume %v", live.reads, live.longest, machine.longest)
	if n := live.stalls(machine); live.err != nil || n > 0 {
		t.Errorf("who read the volume waited %d times, %v at most: %v", n, live.longest, live.err)
	}
	select {
	case err := <-released:
		if err == nil {
			t.Error("it has ended: this test proves nothing")
		}
	case err := <-written:
		t.Errorf("the write has ended: %v", err)
	default:
	}
	r.must(c.Resume(on, 0))
	r.ends("the write", written)
	r.await("the end of all, with no other call", func() bool { return describe(t, nil) == was })
}

// isBusy tells whether something is under way on a device.
func (r *rig) isBusy(n dm.Number) bool {
	var read, write int
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/inflight", n))
	if err == nil {
		_, err = fmt.Sscan(string(b), &read, &write)
	}
	return err == nil && read+write > 0
}

// Who has the device of a snapshot open that was never taken, only to look at it, keeps
// nothing else.
func TestAbortedWhileOpen(t *testing.T) {
	r := newRig(t, plain, "ext4")
	was := describe(t, nil)
	pending, err := r.p.Prepare(t.Context(), "open", []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}})
	r.must(err)
	s := pending.(*set)
	f, err := os.Open(s.targets[0].snap.Node())
	r.must(err)
	closed := make(chan error, 1)
	time.AfterFunc(time.Second, func() { closed <- f.Close() })
	r.must(pending.Abort(t.Context()))
	r.must(<-closed)
	r.await("the end of all", func() bool { return describe(t, nil) == was })
}

// Of two who end one snapshot, neither believes that it has ended before it has.
func TestTwoEnd(t *testing.T) {
	var lower dm.Number
	r := newRig(t, above(&lower), "ext4")
	c := control(t)
	s := r.take().(*target)
	f := r.direct(s.snap.Node())
	defer f.Close()
	r.must(c.Suspend(lower))
	defer func() { _ = c.Resume(lower, 0) }()
	read := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(aligned(), 200<<20) // what no thaw writes, as the superblock
		read <- err
	}()
	r.await("a read that is under way", func() bool { return r.isBusy(s.snap.Number) })
	snap := c.Named(s.tag.as(kindSnapshot).uuid())
	table, err := snap.Table()
	r.must(err)
	ended := make(chan error, 1)
	go func() {
		err := makeError(snap, dm.Sectors(table))
		if is, terr := snap.Table(); err == nil || errors.Is(err, dm.ErrNone) {
			if terr == nil && !isError(is) {
				err = fmt.Errorf("it lives, and is said to have ended: %v", err)
			}
		}
		ended <- err
	}()
	// The other one loads its table whenever the first one has taken that in the slot.
	for end := time.Now().Add(3 * exchangePatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r.must(snap.Load([]dm.Target{{Length: dm.Sectors(table), Type: "error"}}, true))
	}
	select {
	case err := <-ended:
		t.Errorf("while it is read: %v", err)
		ended <- nil
	default:
	}
	r.must(c.Resume(lower, 0))
	r.ends("the read", read)
	r.ends("the end", ended)
	r.must(s.Release(t.Context()))
}

// Who releases a snapshot that is being taken away, and whose end hangs, goes on in time.
func TestReleaseInTime(t *testing.T) {
	r, carrier := pair(t, linear)
	c := control(t)
	on, err := nearest(carrier.Volume)
	r.must(err)
	r.ends("a write", r.writes("a"))
	was := describe(t, nil)
	s := r.take().(*target)
	r.must(c.Suspend(on))
	defer func() { _ = c.Resume(on, 0) }()
	written := r.writes("b")
	r.await("a write that is under way", func() bool { return r.isBusy(s.origin.number) })
	s.lose(errors.New("the test says so"))
	r.await("its removal", s.going.Load)
	began := time.Now()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := s.Release(ctx); !problem.Is(err, problem.ReleaseFailed) {
			t.Errorf("it is released: %v", err)
		}
		cancel()
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
	r.must(c.Resume(on, 0))
	r.ends("the write", written)
	r.await("the end of all, with no other call", func() bool { return describe(t, nil) == was && s.isReleased() })
}
