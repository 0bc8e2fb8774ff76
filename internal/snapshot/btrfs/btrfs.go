package btrfs

import (
	"context"
	"fmt"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// Name is the provider's.
const Name = "btrfs"

// A Provider takes snapshots of btrfs subvolumes.
type Provider struct {
	host    func(context.Context) (*volume.Table, error)
	threads threads
}

// New makes a Provider that asks host what is mounted, each time it needs to
// know.
func New(host func(context.Context) (*volume.Table, error)) *Provider {
	return &Provider{host: host}
}

// Name is "btrfs".
func (p *Provider) Name() string { return Name }

// About says what these snapshots are.
func (p *Provider) About() string { return "native snapshots of btrfs" }

// Check is nil when a snapshot of v can be made as the host is now.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fs, err := open(v)
	if err != nil {
		return err
	}
	defer fs.close()
	if err := fs.writable(); err != nil {
		return err
	}
	swaps, err := p.swaps(ctx)
	if err != nil {
		return err
	}
	if file, busy := swaps[subvolume{fs.uuid, v.Subvolume.ID}]; busy {
		return swapProblem(v, file)
	}
	space, err := newSpace()
	if err != nil {
		return err
	}
	return space.Close()
}

// A subvolume is the identity of one on this host.
type subvolume struct {
	fs btrfs.UUID
	id uint64
}

func (s subvolume) volume() volume.ID {
	return volume.ID(fmt.Sprintf("%s/%d", s.fs, s.id))
}

// swaps returns the subvolumes with a swap file that is in use, and its path.
func (p *Provider) swaps(ctx context.Context) (map[subvolume]string, error) {
	t, err := p.host(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for swap files: %w", err)
	}
	found := map[subvolume]string{}
	for _, s := range t.Swaps() {
		if !s.File {
			continue
		}
		// What cannot be found by its path is found by the kernel: then
		// the snapshot itself fails.
		if sv, err := locate(ctx, s.Path); err == nil {
			found[sv] = s.Path
		}
	}
	return found, nil
}

func swapProblem(v volume.Volume, file string) error {
	return problem.Newf(problem.SwapActive, string(v.ID), "no snapshot can be made of a subvolume that is swapped to (%s)", file)
}

// How the snapshots are mounted: everything in them can be read, and nothing
// else can be done.
const readOnly = mount.ReadOnly | mount.NoDevices | mount.NoSetUID | mount.NoExecute | mount.NoAtime

var _ snapshot.Provider = (*Provider)(nil)
