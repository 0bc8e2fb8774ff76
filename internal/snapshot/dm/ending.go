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
	of map[string]*ending
}{of: map[string]*ending{}}

// An ending is the end of one snapshot.
type ending struct {
	done chan struct{}
	err  error
}

// endSnapshot ends a snapshot that may still be read: who does gets errors from
// now on, and nothing that the live volume has instead. The device then goes with
// its last reader.
//
// The kernel waits for the copies of originals that are under way, in a way that nothing
// ends (snapshot_dtor in drivers/md/dm-snap.c). So it is done in a thread of its own, which
// has no lock, and who has asked waits for a while, and may ask again.
func endSnapshot(ctx context.Context, c *dm.Control, t tag) error {
	e := endingOf(c, t)
	room := watched{control: c, tag: t}
	for began := time.Now(); ; {
		select {
		case <-e.done:
			return e.err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(seldom):
			if r, stays, _ := room.look(); stays {
				_ = resume(c, r.Number, 0) // or at the next look
			}
		}
		if time.Since(began) > endPatience {
			return fmt.Errorf("end %s: %w: originals cannot be written, or read, so the snapshot cannot end", t.name(), dm.ErrSlow)
		}
	}
}

// endingOf is the one under way, or a new one.
func endingOf(c *dm.Control, t tag) *ending {
	endings.Lock()
	defer endings.Unlock()
	id := t.uuid()
	if e := endings.of[id]; e != nil {
		return e
	}
	e := &ending{done: make(chan struct{})}
	endings.of[id] = e
	go func() {
		e.err = endNow(c, id)
		endings.Lock()
		delete(endings.of, id)
		endings.Unlock()
		close(e.done)
	}()
	return e
}

// endNow goes by the UUID: another process may be ending the same snapshot, and the number
// be somebody else's then.
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
