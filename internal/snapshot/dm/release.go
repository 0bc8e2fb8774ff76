package dm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// Release takes our devices away. Where it cannot, or not in time, that goes on.
func (t *target) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.asked.Store(true)
	if err := t.leave(ctx); err != nil {
		t.tryAgain()
		return problem.New(problem.ReleaseFailed, t.ID(), err)
	}
	t.stopWatch(ctx)
	return nil
}

// leave takes everything away, and lets go of the guard when that is what was asked for: one
// that is only lost goes on to say why, until somebody releases it.
func (t *target) leave(ctx context.Context) error {
	if err := t.leaving.take(ctx); err != nil {
		return fmt.Errorf("it is being taken away already: %w", err)
	}
	err := t.leaveNow(ctx)
	t.leaving.give()
	if err == nil && t.isReleased() {
		t.set.finish()
	}
	return err
}

// leaveNow is called with leaving held.
func (t *target) leaveNow(ctx context.Context) error {
	if t.isReleased() {
		return nil
	}
	if t.asked.Load() {
		fault.Point("dm:releasing")
	}
	if err := t.takeAway(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.released = t.asked.Load()
	return nil
}

// again is the time between two tries to take away what somebody else hinders. When the
// snapshot has ended, and keeps nothing any more, it becomes longer.
const (
	again     = 3 * time.Second
	mostAgain = 30 * time.Second
)

// tryPatience is how long one such try may take, with a command of LVM that removes a room.
const tryPatience = 2 * time.Minute

// tryAgain goes on with that while this process lives, which may be an agent's: what
// is of a process that lives nobody else takes away. When only the room is left, who gave
// that knows when to try.
func (t *target) tryAgain() {
	if !t.trying.CompareAndSwap(false, true) {
		return
	}
	go func() {
		for tries, pause := 0, again; ; {
			if t.bare.Load() && t.room != nil {
				t.room.Wait(tries)
				tries++
			} else {
				time.Sleep(pause)
			}
			if t.over.Load() {
				pause = min(2*pause, mostAgain)
			}
			if t.leaveSoon() == nil {
				break
			}
		}
		t.trying.Store(false)
		if t.asked.Load() && !t.isReleased() { // since that
			t.tryAgain()
		}
	}()
}

// leaveSoon is leave, with an end.
func (t *target) leaveSoon() error {
	ctx, cancel := context.WithTimeout(context.Background(), tryPatience)
	defer cancel()
	return t.leave(ctx)
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

// strip takes away what is laid below the origin, and closes what is open. Whatever of
// that waits for a disk lets nobody wait who asks about the snapshot.
func (t *target) strip(ctx context.Context) error {
	t.going.Store(true)
	t.mu.Lock()
	shown := t.shown
	t.shown = nil
	t.mu.Unlock()
	if shown != nil {
		closing := begin(shown.Close)
		t.chores = append(t.chores, closing)
		_ = closing.wait(ctx, time.Now().Add(time.Second), func() {})
	}
	var errs []error
	if !t.bare.Load() { // or no lock is needed
		err := t.unlay(ctx)
		errs = append(errs, err)
		t.bare.Store(err == nil)
	}
	t.mu.Lock()
	for _, s := range []*store{t.store, t.spare} {
		// Not before: what it takes from others is looked at until then, and its last close,
		// which waits for the disk, is not to be that of a loop device.
		if t.bare.Load() && s != nil && s.file != nil {
			t.chores = append(t.chores, begin(s.file.Close))
			s.file = nil
		}
	}
	errs = append(errs, t.closeRoot())
	t.mu.Unlock()
	return errors.Join(append(errs, t.finishChores(ctx))...)
}

// finishChores waits for what was begun, now or by an earlier try.
func (t *target) finishChores(ctx context.Context) error {
	var errs []error
	var left []*chore
	until := time.Now().Add(endPatience)
	for _, c := range t.chores {
		err := c.wait(ctx, until, func() {})
		if !c.hasEnded() {
			left = append(left, c)
			err = fmt.Errorf("close what shows the snapshot, or its cache file: %w", err)
		}
		errs = append(errs, err)
	}
	t.chores = left
	return errors.Join(errs...)
}

// unlay takes our devices away.
func (t *target) unlay(ctx context.Context) error {
	if !t.made {
		t.over.Store(true) // there is none
		return t.origin.clear(ctx, tag{})
	}
	if err := end(ctx, t.set.control, t.tag); err != nil {
		return err
	}
	t.over.Store(true)
	return removeEnded(ctx, t.set.control, t.tag)
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
	if err := end(ctx, c, t); err != nil {
		return err
	}
	return removeEnded(ctx, c, t)
}

// end is the first step of that, after which no originals are kept.
func end(ctx context.Context, c *dm.Control, t tag) error {
	if err := awake(ctx, c, t); err != nil {
		return err
	}
	if err := endSnapshots(ctx, c, t); err != nil {
		return err
	}
	fault.Point("dm:snapshot-removed")
	return nil
}

// removeEnded is what comes then. The store is the last: while it is there, nobody makes
// another snapshot with the same tag, as the same set that is tried again would.
func removeEnded(ctx context.Context, c *dm.Control, t tag) error {
	if err := (origin{c, t.origin}).clear(ctx, t); err != nil {
		return err
	}
	fault.Point("dm:origin-restored")
	for _, kind := range []string{kindSpare, kindStore, kindRoom} {
		if err := removeStore(c, t.as(kind)); err != nil {
			return err
		}
	}
	return nil
}

func removeStore(c *dm.Control, t tag) error {
	s, err := c.StatusOf(t.uuid())
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	return removeDevice(c, s)
}
