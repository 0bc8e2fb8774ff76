package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// A Room is where the originals of one volume go that has no cache file: a block device
// of somebody who knows where there is space for one, as package lvm does.
type Room interface {
	// Name is for people.
	Name() string

	// Make makes the device, of so many bytes, which has a UUID that no other one has had.
	// Nobody is to look for anything in it: what it holds begins and ends 1 MiB from its ends.
	Make(ctx context.Context) (device dm.Device, size int64, err error)

	// Remove removes it, wherever Make has come to, and again after it has failed.
	Remove(ctx context.Context) error

	// Wait waits until it makes sense to try that again, which has failed once and then
	// so many times.
	Wait(tries int)
}

// RoomMargin is what a room has at both ends, in bytes, besides the originals.
const RoomMargin = margin

// A Roomed is a set whose originals go to rooms.
type Roomed interface {
	snapshot.Readier
	Steps

	// CommitAt is Commit, of a set that shares its instant with another one.
	CommitAt(ctx context.Context, instant time.Time) ([]snapshot.Snapshot, error)

	// InTime is nil while all volumes are suspended.
	InTime() error
}

// CheckRoomed is Check where originals go to a room.
func (p *Provider) CheckRoomed(ctx context.Context, v volume.Volume) error {
	if err := p.able(ctx, v); err != nil {
		return err
	}
	return p.untangled(ctx, []volume.Volume{v})
}

// PrepareRoomed is Prepare where the originals of each target go to a room of its own. The
// guard has the duty of who gives the rooms, which takes away what LeftInRooms finds.
func (p *Provider) PrepareRoomed(ctx context.Context, id string, ts []snapshot.Target, rooms []Room, duty string) (Roomed, error) {
	if len(rooms) != len(ts) {
		return nil, fmt.Errorf("%d rooms for %d volumes", len(rooms), len(ts))
	}
	s, err := p.prepare(ctx, id, ts, storing{rooms: rooms, duty: duty})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// untangled is nil where the kernel does not swap to any of the volumes, and where none
// carries the cache file of another snapshot.
func (p *Provider) untangled(ctx context.Context, set []volume.Volume) error {
	t, err := p.host(ctx)
	if err != nil {
		return fmt.Errorf("look what lies on the volumes: %w", err)
	}
	if err := notSwappedTo(t, set); err != nil {
		return err
	}
	_, carrying, err := p.entangled()
	if err != nil {
		return err
	}
	return notCarrying(carrying, set)
}

// makeRooms makes those of the set. A command of LVM may do that, so no lock is held.
func (s *set) makeRooms(ctx context.Context) error {
	for _, t := range s.targets {
		if t.room == nil {
			continue
		}
		device, size, err := t.room.Make(ctx)
		if err != nil {
			return err
		}
		t.store = &store{dir: t.room.Name(), under: device, limits: cachefile.Limits{Maximum: (size - 2*margin) / margin * margin}}
	}
	return nil
}

// makeRoomed lays the device over a room that hides its ends.
func (s *store) makeRoomed(c *dm.Control, t tag) (err error) {
	table := []dm.Target{{Length: uint64(s.limits.Maximum / sector), Type: "linear", Params: fmt.Sprintf("%s %d", s.under.Number, margin/sector)}}
	if s.device, err = makeDevice(c, t.as(kindRoom), table, false); err != nil {
		return err
	}
	// Before it was in use somebody may have removed it, and its number be another one's.
	is, err := c.StatusOf(s.under.UUID)
	if errors.Is(err, dm.ErrNone) || err == nil && is.Number != s.under.Number {
		err = problem.Newf(problem.Busy, s.dir, "another program has removed the room for originals just now")
	}
	if err != nil {
		return errors.Join(err, s.close(c))
	}
	return nil
}

// isRoomed tells a store in a room from a cache file.
func (s *store) isRoomed() bool { return s.under.Number != (dm.Number{}) }

// whyRoomed is whyInvalid of a store in a room: what was written to it is all that the
// kernel says. Not all that it had begun to copy may have come there.
func (s *store) whyRoomed(t *target) error {
	written, err := writtenTo(s.device.Number)
	if err != nil {
		return problem.New(problem.CacheLost, s.dir, err)
	}
	t.used.Store(max(t.used.Load(), min(written, s.limits.Maximum)))
	if t.used.Load() >= s.limits.Maximum-max(s.limits.Maximum/10, int64(s.chunk())*sector*16) {
		t.used.Store(s.limits.Maximum)
		return problem.Newf(problem.CacheFull, s.dir, "the %d MiB for originals, which the volume group had free, are full", s.limits.Maximum>>20)
	}
	return problem.Newf(problem.CacheLost, s.dir, "the kernel could not write an original to it, or read one")
}

// writtenTo is how many bytes were written to a device since it was made (the seventh
// number of Documentation/block/stat.rst, in sectors).
func writtenTo(n dm.Number) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/sys/dev/block", n.String(), "stat"))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 7 {
		return 0, fmt.Errorf("the counters of %s are %q", n, b)
	}
	sectors, err := strconv.ParseInt(f[6], 10, 64)
	return sectors * sector, err
}

// A LeftInRoom is what a process that has ended left of a snapshot whose originals go
// to a room: its Release takes our devices away, and leaves the room.
type LeftInRoom struct {
	snapshot.Snapshot
	Set   string
	Index int // of the target
}

// LeftInRooms finds them. No command is run for that.
func (p *Provider) LeftInRooms(ctx context.Context) ([]LeftInRoom, error) {
	all, _, err := p.left(ctx, true) // what looks alike is said by Leftovers
	var left []LeftInRoom
	for _, l := range all {
		left = append(left, LeftInRoom{l, l.tag.set, l.tag.index})
	}
	return left, err
}
