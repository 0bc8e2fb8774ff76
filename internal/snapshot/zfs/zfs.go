package zfs

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/sys/zfs"
	"stillpoint/internal/volume"
)

// Name is the provider's.
const Name = "zfs"

// A Provider takes snapshots of datasets.
type Provider struct {
	host func(context.Context) (*volume.Table, error)
	dir  string
	zfs  *stuck
}

// New makes a Provider that asks host what is mounted, each time it needs to know, and
// keeps its records in the folder dir, which it makes.
func New(host func(context.Context) (*volume.Table, error), dir string) *Provider {
	return &Provider{host: host, dir: dir, zfs: &stuck{}}
}

// Name is "zfs".
func (p *Provider) Name() string { return Name }

// About says what these snapshots are.
func (p *Provider) About() string { return "native snapshots of ZFS" }

// Check is nil when a snapshot of v can be made as the host is now.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := ours(v); err != nil {
		return err
	}
	d, err := open()
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := p.stats(ctx, d, v.Source); err != nil {
		return coded(string(v.ID), err)
	}
	if _, err := p.pool(ctx, poolOf(v.Source)); err != nil {
		return err
	}
	if err := p.roomy(ctx, d, poolOf(v.Source)); err != nil {
		return err
	}
	space, err := newSpace()
	if err != nil {
		return err
	}
	return space.Close()
}

// ours is nil for a mounted dataset.
func ours(v volume.Volume) error {
	switch {
	case v.FSType != "zfs":
		return problem.Newf(problem.NoProvider, string(v.ID), "is %s, not ZFS", v.FSType)
	case strings.Contains(v.Source, "@"):
		return problem.Newf(problem.NoProvider, string(v.ID), "is a snapshot of ZFS itself")
	}
	return nil
}

// open opens the device of the module.
func open() (*zfs.Device, error) {
	d, err := zfs.Open()
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, problem.New(problem.NotAllowed, "ZFS", err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.Newf(problem.NoProvider, "ZFS", "cannot be asked: there is no /dev/zfs here, as in a container: %w", err)
	}
	return nil, problem.New(problem.SnapshotFailed, "ZFS", err)
}

// poolOf is the pool of a dataset or snapshot.
func poolOf(name string) string {
	if i := strings.IndexAny(name, "/@"); i >= 0 {
		return name[:i]
	}
	return name
}

// How the snapshots are mounted: everything in them can be read, and nothing else can
// be done.
const readOnly = mount.ReadOnly | mount.NoDevices | mount.NoSetUID | mount.NoExecute | mount.NoAtime

var _ snapshot.Provider = (*Provider)(nil)
