package zfs

import (
	"context"
	"fmt"
	"strconv"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
)

// A pool is what zpool says of one.
type pool struct {
	name     string
	guid     uint64
	datasets []dataset // once asked
}

// pool describes one that snapshots can be made on.
func (p *Provider) pool(ctx context.Context, name string) (pool, error) {
	lines, err := p.list(ctx, 3, "zpool", "list", "-H", "-p", "-o", "guid,health,readonly", name)
	if err != nil {
		return pool{}, err
	}
	if len(lines) != 1 {
		return pool{}, problem.Newf(problem.SnapshotFailed, name, "zpool says %d lines of one pool", len(lines))
	}
	guid, err := strconv.ParseUint(lines[0][0], 10, 64)
	switch {
	case err != nil:
		return pool{}, problem.New(problem.SnapshotFailed, name, fmt.Errorf("its guid: %w", err))
	case lines[0][1] == "SUSPENDED":
		return pool{}, problem.Newf(problem.ZFSStuck, name, "the pool is suspended: its disks do not answer")
	case lines[0][2] == "on":
		return pool{}, problem.Newf(problem.VolumeReadOnly, name, "the pool is imported read-only")
	}
	return pool{name: name, guid: guid}, nil
}

// How much of a pool, or of a quota, is to stay free for the programs that write there: a
// snapshot keeps what they overwrite and delete.
const (
	reserve     = 3             // percent
	reserveMost = 8_000_000_000 // bytes, of a large one
)

// reserved is that of something of this size.
func reserved(all uint64) uint64 { return min(all/100*reserve, reserveMost) }

// roomy is nil while there is the reserve in a pool.
func (p *Provider) roomy(ctx context.Context, d *zfs.Device, pool string) error {
	st, err := p.stats(ctx, d, pool)
	if err != nil {
		return coded(pool, err)
	}
	return enough(pool, st)
}

// enough is nil where a pool's own dataset says that there is the reserve.
func enough(pool string, st zfs.Stats) error {
	all := st.Used + st.Available
	if need := reserved(all); st.Available < need {
		return problem.Newf(problem.SnapshotFull, pool, "the pool has %d MiB left of %d, and %d are to be free for the programs that write to it", st.Available>>20, all>>20, need>>20)
	}
	return nil
}

// pool describes a pool of the set, and asks about it when it is the first time.
func (s *set) pool(ctx context.Context, name string) (pool, error) {
	p, known := s.pools[name]
	if known {
		return p, nil
	}
	p, err := s.p.pool(ctx, name)
	if err != nil {
		return p, err
	}
	if err := s.p.roomy(ctx, s.device, name); err != nil {
		return p, err
	}
	if p.datasets, err = s.p.datasets(ctx, name); err != nil {
		return p, err
	}
	s.pools[name] = p
	return p, nil
}
