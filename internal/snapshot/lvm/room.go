package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
)

// A room is a logical volume for the originals of a classic one. LVM has it as an
// ordinary one that is active and in use.
type room struct {
	console *console
	control *dm.Control
	lv      logical
	claim   claim
	space   space
	extents int64
	begun   bool // to make it
}

// roomInfix tells the names of rooms from those of thin snapshots.
const roomInfix = "-room-"

func newRoom(console *console, control *dm.Control, set string, index int, t thick, by owner) *room {
	lv := logical{Group: t.lv.Group, GroupUUID: t.lv.GroupUUID, Name: namePrefix + set + roomInfix + strconv.Itoa(index), Type: roomType}
	c := claim{set: set, of: t.lv.UUID, by: by}
	c.proof = c.roomDigest(lv.GroupUUID, lv.Name)
	return &room{console: console, control: control, lv: lv, claim: c, space: t.space, extents: t.extents}
}

// Name is that of the logical volume.
func (r *room) Name() string { return r.lv.full() }

// Make makes the volume. LVM wipes its beginning, and activates it as any other; at the
// next boot it does not.
func (r *room) Make(ctx context.Context) (n dm.Number, size int64, err error) {
	args := slices.Concat([]string{
		"--type", roomType, "--extents", strconv.FormatInt(r.extents, 10), "--name", r.lv.Name,
		"--activate", "y", "--setactivationskip", "y", "--ignoreactivationskip", "--zero", "y", "--wipesignatures", "y",
	}, noted, quiet)
	for _, tag := range r.claim.tags() {
		args = append(args, "--addtag", tag)
	}
	args = append(append(args, r.lv.Group), r.space.disks...)
	r.begun = true
	if _, err := r.console.change(ctx, "lvcreate", args...); err != nil {
		if strings.Contains(err.Error(), "nsufficient") { // "Insufficient free space", "insufficient suitable allocatable extents"
			return n, 0, r.space.short(err)
		}
		return n, 0, coded(r.Name(), fmt.Errorf("make room for originals: %w", err))
	}
	fault.Point("lvm:room-made")
	lvs, err := r.console.list(ctx, "-S", mine(r.lv, r.claim.proof))
	if err == nil && len(lvs) != 1 {
		err = errors.New("it is not there")
	}
	if err != nil {
		return n, 0, coded(r.Name(), fmt.Errorf("look for the room that was made: %w", err))
	}
	d, err := r.control.StatusOf(dmUUID(lvs[0]))
	if err != nil {
		return n, 0, coded(r.Name(), fmt.Errorf("look for the device of the room that was made: %w", err))
	}
	table, err := r.control.Table(d.Number)
	return d.Number, int64(dm.Sectors(table) * 512), err
}

// Remove removes the volume, if it is there.
func (r *room) Remove(ctx context.Context) error {
	if !r.begun {
		return nil
	}
	if err := removeVolume(ctx, r.console, r.lv, r.claim.proof); err != nil {
		return err
	}
	fault.Point("lvm:room-removed")
	r.begun = false
	return nil
}

var _ stack.Room = (*room)(nil)

// index is that of the target, in the name of a room.
func (lv logical) index() (int, error) {
	_, number, _ := strings.Cut(lv.Name, roomInfix)
	return strconv.Atoi(number)
}

// unusedRooms makes sure that there are no rooms of a set of this id.
func unusedRooms(lvs []logical, id string) error {
	for _, lv := range lvs {
		if c, ours := lv.read(); ours && lv.Type == roomType && c.set == id || strings.HasPrefix(lv.Name, namePrefix+id+roomInfix) {
			return problem.Newf(problem.Busy, id, "a set of this id exists: %s", lv.full())
		}
	}
	return nil
}
