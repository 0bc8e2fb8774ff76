package dm

import (
	"context"
	"errors"
	"fmt"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/device"
	"stillpoint/internal/sys/dm"
)

// A layer is the snapshot once more, as a device that can be written: for the journal
// of a file system that is mounted read-only without having it replayed, or went
// read-only by an error. What is written goes to a file of its own, beside the cache
// file, and with the layer.
type layer struct {
	t    *target
	snap dm.Device
}

// layer makes one. It is called with mu held, by show.
func (t *target) layer(ctx context.Context, below device.Device) (_ device.Layer, err error) {
	c := t.set.control
	limits := t.store.limits
	limits.Initial = 0 // the journal's size at most is written
	spare, err := makeStore(c, t.tag.as(kindSpare), t.store.dir, limits)
	if err != nil {
		return nil, err
	}
	t.spare = spare
	sectors, err := t.sectors()
	if err != nil {
		return nil, err
	}
	l := &layer{t: t}
	table := []dm.Target{{Length: sectors, Type: "snapshot", Params: fmt.Sprintf("%s %s N %d", below.Number, spare.device.Number, spare.chunk())}}
	if l.snap, err = makeDevice(c, t.tag.as(kindLayer), table, false); err != nil {
		return nil, err
	}
	return l, ctx.Err()
}

// Device is what is mounted.
func (l *layer) Device() device.Device {
	return device.Device{Node: l.snap.Node(), Number: l.snap.Number.String()}
}

// Close begins to end it. Who still reads it gets errors. Its store goes with all else, which
// waits for that end.
func (l *layer) Close() error {
	endingOf(l.t.set.control, l.t.tag.as(kindLayer))
	return nil
}

// spareIsGood is nil while a layer, if there is one, has what was written to it. It is
// called with mu held.
func (t *target) spareIsGood() error {
	if t.spare == nil || t.shown == nil {
		return nil
	}
	c := t.set.control
	d, err := c.StatusOf(t.tag.as(kindLayer).uuid())
	if err != nil {
		return err
	}
	state, err := c.State(d.Number)
	if err != nil {
		return err
	}
	if _, valid := parseState(state); !valid {
		return problem.New(problem.CacheFull, t.spare.dir, errors.New("there was no room for what the journal of the volume holds"))
	}
	return nil
}
