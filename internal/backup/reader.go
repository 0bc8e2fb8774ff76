package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/tree"
	"stillpoint/internal/volume"
)

// read begins to read all snapshots that can be read without their Root.
func (c *capture) read(ctx context.Context) error {
	c.readers = map[volume.ID]snapshot.Reader{}
	for id, s := range c.snaps {
		readable, ok := snapshot.Ask[snapshot.Readable](s)
		if !ok {
			continue
		}
		r, err := readable.Reader(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read the snapshot %s: %w", s.ID(), err), c.ask())
		}
		c.readers[id] = r
	}
	return nil
}

// unread ends that.
func (c *capture) unread() {
	for _, r := range c.readers {
		r.Close() // it was only read
	}
	c.readers = nil
}

// snap is the snapshot of a volume; nil where it is read live, as all is without
// a capture.
func (c *capture) snap(id volume.ID) snapshot.Snapshot {
	if c == nil {
		return nil
	}
	return c.snaps[id]
}

// A site is where something is read: at a path, or directly in a snapshot.
type site struct {
	root   string
	direct *tree.Direct
}

// site holds a place in a snapshot open.
func (r *reading) site(c *capture, id volume.ID, rel, live string) (site, error) {
	if reader := c.readers[id]; reader != nil {
		d, err := tree.DirectBeneath(reader, rel, live)
		return site{direct: d}, err
	}
	root, err := r.open(c.snaps[id].Root(), rel, live)
	if err != nil { // nothing is there where a snapshot could not be shown
		err = cmp.Or(lost(c.snaps[id]), err)
	}
	return site{root: root}, err
}
