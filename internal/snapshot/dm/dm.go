package dm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/device"
	"stillpoint/internal/sys/blockdev"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/sys/loop"
	"stillpoint/internal/volume"
)

// Name is what the provider is called.
const Name = "dm"

// FileSystems are those that this provider takes.
var FileSystems = []string{"ext4", "xfs"}

// Provider takes snapshots with device-mapper.
type Provider struct {
	host  func(context.Context) (*volume.Table, error)
	rules cachefile.Rules

	mu      sync.Mutex
	control *dm.Control
}

// New makes a provider; host says what is mounted.
func New(host func(context.Context) (*volume.Table, error)) *Provider {
	return &Provider{host: host}
}

// Name is "dm".
func (p *Provider) Name() string { return Name }

// About says what these snapshots are.
func (p *Provider) About() string {
	return "device-mapper: the original of what changes goes to a cache file on another volume, whatever free space the volume group has"
}

// Check is nil when a snapshot of v can be made as the host is now.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error {
	return p.check(ctx, v, p.rules, "")
}

func (p *Provider) check(ctx context.Context, v volume.Volume, r cachefile.Rules, dir string) error {
	if err := p.able(ctx, v); err != nil {
		return err
	}
	if _, err := os.Stat(loop.Control); err != nil { // for the cache file
		return problem.New(problem.NoProvider, string(v.ID), fmt.Errorf("the kernel has no loop devices: %w", err))
	}
	_, _, err := p.place(ctx, []volume.Volume{v}, r, dir)
	return err
}

// able is nil where our devices can be laid below v, or are there already.
func (p *Provider) able(ctx context.Context, v volume.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	number, err := nearest(v)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(v.Mounts, isWhole) {
		return onlyParts(v)
	}
	c, err := p.door()
	if err != nil {
		return problem.New(problem.NoProvider, string(v.ID), err)
	}
	o := origin{c, number}
	d, err := o.at() // before anything that waits for a suspended device
	if err != nil {
		return err
	}
	if asked, err := o.isAsked(); err != nil {
		return err
	} else if asked {
		return o.awaitSettled(ctx) // while nothing is made yet
	}
	table, err := c.Table(number)
	if err != nil {
		return err
	}
	err = fits(table)
	if err == nil {
		err = fitsQueue(filepath.Join("/sys/dev/block", number.String(), "queue"))
	}
	if err != nil {
		return problem.New(problem.NoProvider, string(v.ID), fmt.Errorf("%s cannot be laid below: %w", d.Name, err))
	}
	return nil
}

// nearest is the device that the file system is mounted from, if it is one of
// device-mapper. Only v is looked at.
func nearest(v volume.Volume) (dm.Number, error) {
	none := func(format string, args ...any) (dm.Number, error) {
		return dm.Number{}, problem.Newf(problem.NoProvider, string(v.ID), format, args...)
	}
	switch {
	case v.Kind != volume.Local || !slices.Contains(FileSystems, v.FSType):
		return none("%s takes ext4 and XFS, this is %s", Name, v.FSType)
	case device.Check(v.FSType) != nil:
		return none("%v", device.Check(v.FSType))
	case len(v.Stack) == 0 || v.Stack[0].DMName == "" || len(v.Stack) > 1 && v.Stack[1].Level == 0:
		return none("it lies on no device of device-mapper, such as one of LVM or LUKS")
	case device.Apart(v.Options) != nil:
		return none("%v", device.Apart(v.Options))
	case v.Stack[0].Number != v.Device:
		return none("it is mounted from %s, and lies on %s", v.Device, v.Stack[0].Number)
	}
	n, err := dm.ParseNumber(v.Device)
	if err != nil {
		return none("%v", err)
	}
	return n, nil
}

// door opens the way to the kernel's device-mapper, once.
func (p *Provider) door() (*dm.Control, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control == nil {
		c, err := dm.Open()
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = errors.New("the kernel has no device-mapper, or has not loaded it")
			}
			return nil, err
		}
		p.control = c
	}
	if err := p.control.Has("snapshot"); err != nil {
		return nil, fmt.Errorf("the kernel's module dm-snapshot is not there: %w", err)
	}
	return p.control, nil
}

// open opens the root of a volume, at any place where all of it shows.
func open(v volume.Volume) (*os.File, error) {
	for _, m := range v.Mounts {
		if !isWhole(m) {
			continue
		}
		f, err := os.Open(m.Point)
		if err != nil {
			return nil, problem.New(problem.VolumeLost, m.Point, err)
		}
		is, err := blockdev.Carries(v.Device, f)
		if err == nil && !is {
			err = errors.New("what is mounted there now is another volume")
		}
		if err != nil {
			return nil, problem.New(problem.VolumeLost, m.Point, errors.Join(err, f.Close()))
		}
		return f, nil
	}
	return nil, onlyParts(v)
}

// isWhole tells whether all of a volume shows at a mount, and can be opened there.
func isWhole(m volume.Mount) bool { return !m.Hidden && !m.Deleted && m.Root == "/" }

func onlyParts(v volume.Volume) error {
	return problem.Newf(problem.NoProvider, string(v.ID), "only parts of the volume are mounted: mount all of it somewhere")
}

var _ snapshot.Provider = (*Provider)(nil)
