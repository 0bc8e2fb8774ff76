package dm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/sys/dm"
)

// endPatience is how long the end of a snapshot is waited for.
const endPatience = lockPatience

// endings are those under way, by the UUID of their devices.
var endings = struct {
	sync.Mutex
	of map[string]*chore
}{of: map[string]*chore{}}

// endSnapshots ends a snapshot that may still be read, and its layer: who reads gets errors from
// now on, and nothing that the live volume has instead. The devices then go with
// their last reader.
//
// The kernel waits for the copies of originals that are under way, in a way that nothing
// ends (snapshot_dtor in drivers/md/dm-snap.c). So each is done in a thread of its own, and
// the one does not wait for long for the other.
func endSnapshots(ctx context.Context, c *dm.Control, t tag) error {
	room := watched{control: c, tag: t}
	look := func() {
		if r, stays, _ := room.look(); stays {
			_ = resume(c, r.Number, 0) // or at the next look
		}
	}
	layer := endingOf(c, t.as(kindLayer)) // which has the other one open
	_ = layer.wait(ctx, time.Now().Add(time.Second), look)
	until := time.Now().Add(endPatience)
	return errors.Join(
		t.unended(endingOf(c, t.as(kindSnapshot)).wait(ctx, until, look)),
		t.as(kindLayer).unended(layer.wait(ctx, until, look)))
}

// unended says which snapshot has not ended.
func (t tag) unended(err error) error {
	if errors.Is(err, dm.ErrSlow) {
		return fmt.Errorf("end %s: originals cannot be written, or read, so the snapshot cannot end: %w", t.name(), err)
	}
	return err
}

// endingOf is the one under way, or a new one.
func endingOf(c *dm.Control, t tag) *chore {
	endings.Lock()
	defer endings.Unlock()
	id := t.uuid()
	if e := endings.of[id]; e != nil {
		return e
	}
	e := begin(func() error {
		err := endNow(c, id)
		endings.Lock()
		defer endings.Unlock()
		delete(endings.of, id)
		return err
	})
	endings.of[id] = e
	return e
}

// endNow goes by the UUID: another process may be ending the same snapshot, and the number
// be somebody else's then. Nobody gives the UUID to another snapshot before we are done: a
// set that is tried again in the same process may have the same id (quiesce.Take), and finds
// the store still there (removeEnded).
func endNow(c *dm.Control, uuid string) error {
	snap := c.Named(uuid)
	table, err := snap.Table()
	switch {
	case err == nil && len(table) == 0: // the one in its slot holds what is laid below
		err = snap.Clear()
	case err == nil && !isError(table):
		err = makeError(snap, dm.Sectors(table))
	}
	if err == nil {
		err = snap.Remove(dm.Alone)
	}
	if errors.Is(err, dm.ErrInUse) {
		err = snap.RemoveLater(dm.Alone)
	}
	return ignore(err, dm.ErrNone)
}

// makeError lets a snapshot be one no more. Nobody else has to do with its table but another
// process of ours that ends it, too. The two may take the table in the slot from each other, so
// that a call succeeds with none, or says that there is no device: only a look tells whether
// it has ended.
func makeError(snap dm.Named, sectors uint64) error {
	for try := 1; ; try++ {
		err := snap.Load([]dm.Target{{Length: sectors, Type: "error"}}, true)
		if err == nil {
			err = dm.Within(exchangePatience, func() error { return snap.Resume(dm.Alone) })
		}
		table, terr := snap.Table()
		switch passing := err == nil || errors.Is(err, dm.ErrSlow) || errors.Is(err, syscall.EINVAL) || errors.Is(err, dm.ErrNone); {
		case terr != nil: // or it is gone
			return terr
		case isError(table):
			return nil
		case !passing:
			return err
		case try == exchangeTries:
			return fmt.Errorf("end a snapshot: %w, %d times", dm.ErrSlow, try)
		}
		time.Sleep(exchangePatience / 2) // those go on who read it
	}
}
