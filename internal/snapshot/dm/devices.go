package dm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/sys/loop"
)

// A found is a device of device-mapper, and what it is to us.
type found struct {
	dm.Device
	tag  tag
	ours bool // by its UUID
	like bool // it has a name or a UUID that begins as ours do, and is not ours
}

// devices are all that there are.
func devices(c *dm.Control) ([]found, error) {
	list, err := c.List()
	if err != nil {
		return nil, err
	}
	var all []found
	for _, l := range list {
		d, err := c.Status(l.Number)
		if errors.Is(err, dm.ErrNone) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		f := found{Device: d}
		f.tag, f.ours = parseTag(d.UUID)
		f.like = !f.ours && (strings.HasPrefix(d.Name, namePrefix) || strings.HasPrefix(strings.TrimPrefix(d.UUID, private), uuidPrefix))
		all = append(all, f)
	}
	return all, nil
}

// entangled are the numbers of the devices that ask ours, and of those that carry
// cache files of ours, with the origins that these are for.
func (p *Provider) entangled() (asking map[string]bool, carrying map[string][]string, err error) {
	asking, carrying = map[string]bool{}, map[string][]string{}
	c, err := p.look()
	if c == nil || err != nil {
		return asking, carrying, err
	}
	all, err := devices(c)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range all {
		switch {
		case !d.ours:
		case d.tag.kind == kindStore, d.tag.kind == kindSpare:
			carriers, err := carriersOf(c, d.Device)
			if err != nil {
				return nil, nil, err
			}
			for _, dev := range carriers {
				carrying[dev] = append(carrying[dev], d.tag.origin.String())
			}
		default:
			asking[d.tag.origin.String()] = true
		}
	}
	return asking, carrying, nil
}

// carriersOf are the numbers of the devices that the cache file of a store lies on. Where
// that cannot be known it may be any one: two volumes that keep each other's originals would
// do so without an end. A store that has gone meanwhile is on none.
func carriersOf(c *dm.Control, store dm.Device) (all []string, err error) {
	if !store.Live {
		return nil, nil // nothing was ever written to it
	}
	names := below(store)
	if len(names) == 0 {
		err = errors.New("it lies on no device")
	}
	for _, name := range names {
		dev, cerr := loop.Carrier(name)
		err = errors.Join(err, cerr)
		all = append(all, dev)
	}
	if err == nil {
		return all, nil
	}
	if _, gone := c.StatusOf(store.UUID); errors.Is(gone, dm.ErrNone) {
		return nil, nil
	}
	return nil, problem.New(problem.Busy, store.Name, fmt.Errorf("where the cache file of another snapshot lies cannot be known: %w", err))
}

// below are the names of the devices that a device stands on.
func below(d dm.Device) (names []string) {
	return slaves(filepath.Join("/sys/dev/block", d.Number.String()))
}

// slaves are the names of the devices that one stands on, by its folder of /sys.
func slaves(dir string) (names []string) {
	all, _ := os.ReadDir(filepath.Join(dir, "slaves"))
	for _, s := range all {
		names = append(names, s.Name())
	}
	return names
}
