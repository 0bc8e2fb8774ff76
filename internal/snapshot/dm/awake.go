package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// brief is how long somebody else may suspend a room, as LVM does for pvmove and
// lvextend. Who writes to the volume waits for that, and no longer because of us.
const brief = 400 * time.Millisecond

// roomOf is the device that a snapshot has for its originals, by our device over it, which
// has it in use. Of a cache file, or when it has gone, the error is dm.ErrNone.
func roomOf(c *dm.Control, t tag) (room dm.Device, err error) {
	store, err := c.StatusOf(t.as(kindRoom).uuid())
	if err != nil {
		return room, err
	}
	table, err := c.Table(store.Number)
	if err != nil {
		return room, err
	}
	if len(table) != 1 || table[0].Type != "linear" {
		return room, problem.Newf(problem.SnapshotLost, store.Name, "another program has changed the device")
	}
	under, _, _ := strings.Cut(table[0].Params, " ")
	n, err := dm.ParseNumber(under)
	if err != nil {
		return room, err
	}
	return c.Status(n)
}

// A watched room is looked at again and again.
type watched struct {
	control *dm.Control
	tag     tag
	since   time.Time // it is suspended; zero where it is not
}

// look tells whether it has been suspended for too long. Without one the error is
// dm.ErrNone.
func (w *watched) look() (room dm.Device, stays bool, err error) {
	room, err = roomOf(w.control, w.tag)
	switch {
	case err != nil || !room.Suspended:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = time.Now()
	}
	return room, !w.since.IsZero() && time.Since(w.since) > brief, err
}

// tend lets writers go on who wait for a room that stays suspended, as it does for ever
// when the command was killed that did it. It ends with our device over the room.
func (t *target) tend() {
	for w := (watched{control: t.set.control, tag: t.tag}); !t.bare.Load(); time.Sleep(seldom) {
		if room, stays, _ := w.look(); stays {
			t.wake(room)
		}
	}
}

// wake resumes the room. A table in its slot, which the other program has put there, is
// the room's from then on. Whether LVM has noted what belongs to that is not known, and
// nothing but a volume that it knows is to be written to, so the snapshot is given up.
// It is never cleared: LVM would not notice, and give what the room goes on using to others.
func (t *target) wake(room dm.Device) {
	if room.Loaded {
		t.lose(fmt.Errorf("another program has changed the place of its originals (%s), and left it suspended for more than %v", room.Name, brief))
	}
	_ = resume(t.set.control, room.Number, 0) // or at the next look
}

// awakening is how long a device below a room may be suspended before that is said.
const awakening = 5 * time.Second

// awake is nil where no copy of an original waits for a device that is suspended, as the end
// of a snapshot would with it. A room that stays so is resumed. What it lies on is not ours.
// No lock is held, for who has suspended it may hold that.
func awake(ctx context.Context, c *dm.Control, t tag) error {
	w := watched{control: c, tag: t}
	for began := time.Now(); ; {
		room, stays, err := w.look()
		switch {
		case err != nil:
			return ignore(err, dm.ErrNone)
		case stays:
			if err := resume(c, room.Number, 0); err != nil {
				return problem.New(problem.DeviceSuspended, room.Name, err)
			}
		}
		if stays || !room.Suspended {
			err = allAwake(c, room.Name, below(room))
			if err == nil || time.Since(began) > awakening {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(brief / 10):
		}
	}
}

// allAwake is nil where none of these devices is suspended, nor one that they lie on.
func allAwake(c *dm.Control, over string, names []string) error {
	for _, name := range names {
		dir := filepath.Join("/sys/class/block", name)
		if strings.HasPrefix(name, "dm-") {
			if err := isAwake(c, over, dir); err != nil {
				return err
			}
		}
		if err := allAwake(c, over, slaves(dir)); err != nil {
			return err
		}
	}
	return nil
}

func isAwake(c *dm.Control, over, dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return ignore(err, os.ErrNotExist) // gone meanwhile
	}
	n, err := dm.ParseNumber(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	d, err := c.Status(n)
	if err == nil && d.Suspended {
		return problem.Newf(problem.DeviceSuspended, d.Name, "the device, on which %s lies, is suspended, so originals cannot be kept, nor their snapshot be taken away, until somebody resumes it", over)
	}
	return ignore(err, dm.ErrNone)
}
