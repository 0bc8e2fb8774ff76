package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
	"stillpoint/internal/tool"
)

// pools are the names of those that are imported, by their guids.
func (p *Provider) pools(ctx context.Context) (map[uint64]string, error) {
	lines, err := p.list(ctx, 2, "zpool", "list", "-H", "-p", "-o", "guid,name")
	if err != nil {
		return nil, err
	}
	pools := map[uint64]string{}
	for _, l := range lines {
		if guid, err := strconv.ParseUint(l[0], 10, 64); err == nil {
			pools[guid] = l[1]
		}
	}
	return pools, nil
}

// A dataset is a file system as zfs lists it.
type dataset struct {
	name       string
	mounted    bool
	canMount   string // "on", "off", "noauto"
	keyStatus  string // "available", "unavailable", "-"
	mountPoint string // a path, "none", "legacy"
}

// datasets lists the file systems of a pool.
func (p *Provider) datasets(ctx context.Context, pool string) ([]dataset, error) {
	lines, err := p.list(ctx, 5, "zfs", "list", "-H", "-p", "-r", "-t", "filesystem", "-o", "name,mounted,canmount,keystatus,mountpoint", pool)
	if err != nil {
		return nil, err
	}
	var all []dataset
	for _, l := range lines {
		all = append(all, dataset{l[0], l[1] == "yes", l[2], l[3], l[4]})
	}
	return all, nil
}

// snapshots lists those of a pool whose names begin as ours do. Names alone are quick
// also where there are many.
func (p *Provider) snapshots(ctx context.Context, pool string) ([]string, error) {
	lines, err := p.list(ctx, 1, "zfs", "list", "-H", "-r", "-t", "snapshot", "-o", "name", "-s", "name", pool)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range lines {
		if strings.Contains(l[0], "@"+prefix) {
			names = append(names, l[0])
		}
	}
	return names, nil
}

// list runs a program that prints lines of a number of columns.
func (p *Provider) list(ctx context.Context, columns int, program string, args ...string) (lines [][]string, err error) {
	what := program + " " + args[0]
	var out []byte
	err = p.zfs.do(ctx, answerLimit, what, func() error {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
		defer cancel()
		var err error
		out, err = tool.Run(limited, program, args...)
		return err
	})
	if err != nil {
		return nil, saidBy(what, err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", columns)
		if len(fields) != columns {
			return nil, problem.Newf(problem.SnapshotFailed, what, "says %q, which is not %d columns", line, columns)
		}
		lines = append(lines, fields)
	}
	return lines, nil
}

// saidBy gives the failure of a program its code.
func saidBy(what string, err error) error {
	var e *tool.Error
	switch {
	case !errors.As(err, &e):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return problem.New(problem.NoProvider, what, fmt.Errorf("the programs of ZFS are not there (Debian: zfsutils-linux): %w", err))
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.ZFSStuck, what, err)
	case strings.Contains(e.Stderr, "Permission denied"):
		return problem.New(problem.NotAllowed, what, err)
	case strings.Contains(e.Stderr, "no such pool"), strings.Contains(e.Stderr, "does not exist"):
		return problem.New(problem.VolumeLost, what, err)
	case strings.Contains(e.Stderr, "suspended"):
		return problem.New(problem.ZFSStuck, what, err)
	}
	return problem.New(problem.SnapshotFailed, what, err)
}

// stats asks the kernel about a dataset or snapshot.
func (p *Provider) stats(ctx context.Context, d *zfs.Device, name string) (s zfs.Stats, err error) {
	answer := make(chan zfs.Stats, 1)
	err = p.zfs.do(ctx, answerLimit, name, func() error {
		s, err := d.Stats(name)
		answer <- s
		return err
	})
	if err == nil {
		s = <-answer
	}
	return s, err
}

// gone tells whether an error says that there is no such thing.
func gone(err error) bool { return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) }
