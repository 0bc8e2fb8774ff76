// Package quiet waits for a moment in which nobody writes to some volumes. It
// knows the counters that the kernel keeps of block devices
// (Documentation/ABI/stable/sysfs-block), and nothing of snapshots.
//
// What a program writes is counted when it reaches the device, which for
// buffered writes is some seconds later: a quiet time says that the disks rest,
// as the Advanced Open File Option means it, not that no program is at work.
package quiet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// Options say for how long nobody may write, and how long is waited for that.
type Options struct {
	For     time.Duration
	Timeout time.Duration
}

// Wait returns when nobody has written to any of the volumes for o.For, or with
// the code no-quiet-time after o.Timeout. Volumes that lie on no block device of
// this host are taken to be quiet.
func Wait(ctx context.Context, vs []volume.Volume, o Options) error {
	return wait(ctx, os.DirFS("/sys/dev/block"), vs, o)
}

func wait(ctx context.Context, sys fs.FS, vs []volume.Volume, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	tick := time.NewTicker(max(min(o.For/10, 50*time.Millisecond), time.Millisecond))
	defer tick.Stop()
	last, busy, since := map[string]uint64{}, "", time.Now()
	for {
		now, err := counters(sys, vs)
		if err != nil {
			return err
		}
		for id, n := range now {
			if n != last[id] {
				since, busy = time.Now(), id
			}
		}
		last = now
		if time.Since(since) >= o.For {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return problem.Newf(problem.NoQuietTime, busy, "within %s there were no %s in which nobody wrote to it", o.Timeout, o.For)
			}
			return ctx.Err()
		}
	}
}

// counters are the writes to each volume, by its id. One on which a write is under
// way has another number each time.
func counters(sys fs.FS, vs []volume.Volume) (map[string]uint64, error) {
	all := map[string]uint64{}
	for _, v := range vs {
		for _, d := range v.Stack {
			if d.Level != 0 {
				continue
			}
			n, err := writes(sys, d.Number)
			if errors.Is(err, fs.ErrNotExist) {
				continue // gone: whoever reads the volume will say so
			}
			if err != nil {
				return nil, fmt.Errorf("counters of %s: %w", d.Name, err)
			}
			if underWay(sys, d.Number) {
				n = uint64(time.Now().UnixNano())
			}
			all[string(v.ID)] += n
		}
	}
	return all, nil
}

// underWay tells whether a write is at work just now.
func underWay(sys fs.FS, number string) bool {
	b, err := fs.ReadFile(sys, filepath.Join(number, "inflight")) // reads, writes
	fields := strings.Fields(string(b))
	return err == nil && len(fields) == 2 && fields[1] != "0"
}

// writes is the number of writes and of sectors written, as one number that
// grows with both.
func writes(sys fs.FS, number string) (uint64, error) {
	b, err := fs.ReadFile(sys, filepath.Join(number, "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	const ios, sectors = 4, 6
	if len(fields) <= sectors {
		return 0, fmt.Errorf("%q has too few numbers", b)
	}
	n, err := strconv.ParseUint(fields[ios], 10, 64)
	if err != nil {
		return 0, err
	}
	s, err := strconv.ParseUint(fields[sectors], 10, 64)
	return n + s, err
}
