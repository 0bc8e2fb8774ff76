package dm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Leftovers are devices of ours whose process has ended, and what is laid below an
// origin for nobody. All that is needed to take them away the kernel knows. Those whose
// originals go to a room are for who gives the rooms.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	all, alike, err := p.left(ctx, false)
	if err != nil {
		return nil, err
	}
	var left []snapshot.Snapshot
	for _, l := range all {
		left = append(left, l)
	}
	return left, alike
}

// left finds leftovers, in rooms or not, and what only looks like our devices.
func (p *Provider) left(ctx context.Context, inRooms bool) (left []*leftover, alike, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	c, err := p.look()
	if err != nil || c == nil {
		return nil, nil, err
	}
	var all []found
	// Not while somebody lays them, when a device has no snapshot yet.
	err = locked(ctx, func() (err error) {
		all, err = devices(c)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look for leftovers of device-mapper: %w", err)
	}
	rooms := map[tag]bool{}
	for _, d := range all {
		if d.ours && d.tag.kind == kindRoom {
			rooms[d.tag.as(kindSnapshot)] = true
		}
	}
	needed := map[dm.Number]bool{}
	seen := map[tag]bool{}
	var errs []error
	for _, d := range all {
		switch {
		case d.like:
			errs = append(errs, problem.Newf(problem.LeftoverForeign, d.Name,
				"a device of device-mapper (%s) is called as if it were Stillpoint's, and has not the UUID that Stillpoint gives", d.Number))
		case !d.ours || d.tag.kind == kindReal:
		case d.tag.owner.alive():
			needed[d.tag.origin] = true
		default:
			needed[d.tag.origin] = true
			if t := d.tag.as(kindSnapshot); !seen[t] && rooms[t] == inRooms && !hasEnded(c, d) {
				seen[t] = true
				left = append(left, &leftover{control: c, tag: t})
			}
		}
	}
	for _, d := range all {
		if d.ours && d.tag.kind == kindReal && !needed[d.tag.origin] && !inRooms {
			left = append(left, &leftover{control: c, tag: d.tag})
		}
	}
	return left, errors.Join(errs...), nil
}

// hasEnded is for a snapshot that is still read by somebody, and goes with that
// one.
func hasEnded(c *dm.Control, d found) bool {
	if d.tag.kind != kindSnapshot && d.tag.kind != kindLayer {
		return false
	}
	table, err := c.Table(d.Number)
	return err == nil && isError(table)
}

// look opens device-mapper, if there is one.
func (p *Provider) look() (*dm.Control, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control != nil {
		return p.control, nil
	}
	if !dm.Loaded() {
		return nil, nil // nor is there a device
	}
	c, err := dm.Open()
	for _, none := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENODEV, syscall.ENXIO} {
		if errors.Is(err, none) {
			return nil, nil // who cannot open it has made none
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open device-mapper: %w", err)
	}
	p.control = c
	return c, nil
}

// A leftover is a snapshot of a process that has ended, or only what was laid
// below an origin for one.
type leftover struct {
	control *dm.Control
	tag     tag
}

// ID names the set and the origin.
func (l *leftover) ID() string {
	if l.tag.kind == kindReal {
		return l.tag.name()
	}
	return l.tag.set + "/" + l.tag.origin.String()
}

// Volume is not known of a leftover, but for its device.
func (l *leftover) Volume() volume.ID { return volume.ID(l.tag.origin.String()) }

// Parts are none.
func (l *leftover) Parts() []snapshot.Part { return nil }

// Gaps are none.
func (l *leftover) Gaps() []snapshot.Gap { return nil }

// Root does not exist.
func (l *leftover) Root() string { return nowhere }

// Err says what it is.
func (l *leftover) Err() error {
	return problem.Newf(problem.SnapshotLost, l.ID(), "its process has ended")
}

// Release takes it away.
func (l *leftover) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	release := func() error { return release(ctx, l.control, l.tag) }
	if l.tag.kind == kindReal {
		release = func() error { return origin{l.control, l.tag.origin}.clear(ctx, tag{}) }
	}
	err := release()
	if err != nil {
		return problem.New(problem.ReleaseFailed, l.ID(), err)
	}
	return nil
}

var _ snapshot.Snapshot = (*leftover)(nil)
