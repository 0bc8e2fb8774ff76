package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// A snapshot that has no table any more, or not even a device, may not have ended: the kernel
// waits for its copies, and live writes with them. Whoever exchanged the origin's table then
// would wait for these, too, and let everybody wait who reads the volume.

// settling is how long an end is waited for under locks: as a rule it comes at once.
const settling = 500 * time.Millisecond

// settles is isSettled after a while.
func (o origin) settles(real dm.Device) error {
	for began := time.Now(); ; time.Sleep(settling / 25) {
		err := o.holdsNobody(real)
		if err == nil || time.Since(began) > settling {
			return err
		}
	}
}

// isSettled is nil where no snapshot of the origin is about to end, now or in a while.
func (o origin) isSettled() error {
	real, err := o.real()
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	return o.settles(real)
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

// awaitEnds is awaitSettled where the origin is to get its table back.
func (o origin) awaitEnds(ctx context.Context, ended tag) error {
	if more, err := o.isNeeded(ended); more || err != nil {
		return err
	}
	return o.awaitSettled(ctx)
}

// awaitSettled is isSettled after a longer while. No lock is held.
func (o origin) awaitSettled(ctx context.Context) error {
	for began := time.Now(); ; {
		err := o.isSettled()
		if err == nil || time.Since(began) > removePatience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(seldom):
		}
	}
}

// holdsNobody is nil where a table has real only that is the origin's, or a snapshot's. Who
// only looks at it, as scanners do, has none.
func (o origin) holdsNobody(real dm.Device) error {
	all, err := devices(o.control)
	if err != nil {
		return err
	}
	known := map[string]bool{node(o.number): true}
	for _, d := range all {
		if !d.isSnapshotOf(o) {
			continue
		}
		for _, look := range []func(dm.Number) ([]dm.Target, error){o.control.Table, o.control.Waiting} {
			table, err := look(d.Number)
			if err := ignore(err, dm.ErrNone); err != nil {
				return err
			}
			if len(table) == 1 && table[0].Type == "snapshot" {
				known[node(d.Number)] = true
			}
		}
	}
	names, err := holders(real)
	for _, name := range names {
		if !known[name] {
			return problem.Newf(problem.Busy, real.Name, "an earlier snapshot of the volume (%s) has not ended yet: the kernel still waits for originals that it writes, or reads", name)
		}
	}
	return err
}

// isSnapshotOf tells whether a device is a snapshot of the origin, or was one.
func (d found) isSnapshotOf(o origin) bool {
	return d.ours && d.tag.kind == kindSnapshot && d.tag.origin == o.number
}

// isError is the table of a snapshot that is none any more.
func isError(table []dm.Target) bool { return len(table) == 1 && table[0].Type == "error" }

// node is the name of a device in /sys.
func node(n dm.Number) string { return fmt.Sprintf("dm-%d", n.Minor) }

// holders are the names of the devices whose tables have this one, also of those that are
// about to go: the link is there until the table has let go of it (close_table_device in
// drivers/md/dm.c).
func holders(d dm.Device) (names []string, err error) {
	all, err := os.ReadDir(filepath.Join("/sys/dev/block", d.Number.String(), "holders"))
	for _, h := range all {
		names = append(names, h.Name())
	}
	return names, ignore(err, os.ErrNotExist) // it has gone meanwhile
}
