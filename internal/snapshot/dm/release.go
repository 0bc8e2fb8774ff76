package dm

import (
	"context"
	"errors"
	"os"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// Release takes our devices away.
func (t *target) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.stopWatch()
	if err := t.release(ctx); err != nil {
		return err
	}
	t.set.finish()
	return nil
}

func (t *target) release(ctx context.Context) error {
	t.leaving.Lock()
	defer t.leaving.Unlock()
	if t.isReleased() {
		return nil
	}
	fault.Point("dm:releasing")
	t.asked = true
	if err := t.takeAway(ctx); err != nil {
		t.tryAgain()
		return problem.New(problem.ReleaseFailed, t.ID(), err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.released = true
	return nil
}

// again is the time between two tries to take away what somebody else hinders.
const again = 3 * time.Second

// tryAgain goes on with that while this process lives, which may be an agent's: what
// is of a process that lives nobody else takes away. When only the room is left, who gave
// that knows when to try. It is called with leaving held.
func (t *target) tryAgain() {
	if t.trying {
		return
	}
	t.trying = true
	go func() {
		for tries, gone := 0, false; !gone; {
			if t.bare.Load() && t.room != nil {
				t.room.Wait(tries)
				tries++
			} else {
				time.Sleep(again)
			}
			gone = t.leave()
		}
	}()
}

// leave is one more try, and tells whether all is gone. One that is only lost goes on to
// say why, until somebody releases it.
func (t *target) leave() bool {
	t.leaving.Lock()
	if !t.asked {
		defer t.leaving.Unlock()
		t.trying = t.takeAwaySoon() != nil
		return !t.trying
	}
	t.leaving.Unlock()
	return t.Release(context.Background()) == nil
}

// takeAway removes everything, also where the preparation did not come far. It is
// called with leaving held, and lets go of mu for the room: a command of LVM may take a
// minute, and nobody who asks about the snapshot is to wait for that.
func (t *target) takeAway(ctx context.Context) error {
	err := t.strip(ctx)
	if t.bare.Load() && t.room != nil {
		err = errors.Join(err, t.room.Remove(ctx))
	}
	return err
}

// takeAwaySoon is takeAway, with an end.
func (t *target) takeAwaySoon() error {
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	return t.takeAway(ctx)
}

// strip takes away what is laid below the origin, and closes what is open. Whatever of
// that waits for a disk lets nobody wait who asks about the snapshot.
func (t *target) strip(ctx context.Context) error {
	t.going.Store(true)
	t.mu.Lock()
	shown := t.shown
	t.shown = nil
	t.mu.Unlock()
	var errs []error
	if shown != nil {
		errs = append(errs, shown.Close())
	}
	if !t.bare.Load() { // or no lock is needed
		err := t.unlay(ctx)
		errs = append(errs, err)
		t.bare.Store(err == nil)
	}
	t.mu.Lock()
	var files []*os.File
	for _, s := range []*store{t.store, t.spare} {
		if s != nil && s.file != nil {
			files = append(files, s.file)
			s.file = nil
		}
	}
	errs = append(errs, t.closeRoot())
	t.mu.Unlock()
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// unlay takes our devices away.
func (t *target) unlay(ctx context.Context) error {
	if t.made {
		return release(ctx, t.set.control, t.tag)
	}
	return t.origin.clear(ctx, tag{})
}

// closeRoot is called with mu held.
func (t *target) closeRoot() error {
	if t.root == nil {
		return nil
	}
	err := t.root.Close()
	t.root = nil
	return err
}

// release takes a snapshot away, and with the last one of an origin what is laid
// below that. It asks the kernel what there is, so it works for what another
// process has made, however far that came. No lock is held but while the origin gets its
// table back: all else may wait for the disk of the cache file.
func release(ctx context.Context, c *dm.Control, t tag) error {
	if err := awake(c, t); err != nil {
		return err
	}
	for _, kind := range []string{kindLayer, kindSnapshot} {
		if err := endSnapshot(ctx, c, t.as(kind)); err != nil {
			return err
		}
	}
	fault.Point("dm:snapshot-removed")
	if err := (origin{c, t.origin}).clear(ctx, t); err != nil {
		return err
	}
	fault.Point("dm:origin-restored")
	return errors.Join(removeStore(c, t.as(kindSpare)), removeStore(c, t.as(kindStore)), removeStore(c, t.as(kindRoom)))
}

func removeStore(c *dm.Control, t tag) error {
	s, err := c.StatusOf(t.uuid())
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	return removeDevice(c, s)
}

// clear takes away what is laid below an origin that has no snapshot, under all locks. The
// one that has ended before that is none, though its device may be there still.
func (o origin) clear(ctx context.Context, ended tag) error {
	if err := o.awaitEnds(ctx, ended); err != nil {
		return err
	}
	return allLocked(ctx, o.control, o.number, func() error {
		if more, err := o.isNeeded(ended); more || err != nil {
			return err
		}
		return o.restore()
	})
}

// isNeeded tells whether there is a snapshot of an origin, of whichever process, but for one
// that has ended.
func (o origin) isNeeded(ended tag) (bool, error) {
	all, err := devices(o.control)
	if err != nil {
		return false, err
	}
	for _, d := range all {
		if !d.isSnapshotOf(o) || d.tag == ended.as(kindSnapshot) {
			continue
		}
		table, err := o.control.Table(d.Number)
		if err != nil && !errors.Is(err, dm.ErrNone) {
			return false, err
		}
		if isError(table) {
			continue // it has ended, and is still read
		}
		return true, nil
	}
	return false, nil
}
