package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/sys/file"
)

// lockName is what all processes of the host hold while they put something below
// an origin, or take it away. It says nothing; it ends with the process.
const lockName = "/run/stillpoint/dm.lock"

// lockPatience is how long is waited for it. None of what is done under it takes
// longer than the device needs for what is under way.
const lockPatience = 30 * time.Second

// A lock is a file that is locked.
type lock struct {
	f      *os.File
	remove bool
}

func (l *lock) release() {
	if l == nil {
		return
	}
	if l.remove {
		_ = os.Remove(l.f.Name()) // while it is held, as LVM does
	}
	_ = l.f.Close()
}

// lockOrigins keeps other processes of ours from the origins.
func lockOrigins(ctx context.Context) (*lock, error) {
	if err := os.MkdirAll(filepath.Dir(lockName), 0o755); err != nil {
		return nil, problem.New(problem.SnapshotFailed, lockName, err)
	}
	l, err := take(ctx, lockName)
	if err != nil {
		return nil, problem.New(problem.Busy, lockName, fmt.Errorf("another process of Stillpoint holds it: %w", err))
	}
	return l, nil
}

// lvmLocks is where LVM locks volume groups, by files that come and go
// (lib/locking/file_locking.c and lib/misc/lvm-flock.c of lvm2).
const lvmLocks = "/run/lock/lvm"

// lockVolumeGroup keeps the commands of LVM from the volume group of a logical
// volume, so that none of them changes its table between our look at that and our
// exchange.
func lockVolumeGroup(ctx context.Context, d dm.Device) (*lock, error) {
	if _, err := os.Stat(lvmLocks); err != nil {
		return nil, nil // no command has run since the boot that would take it
	}
	name := filepath.Join(lvmLocks, "V_"+volumeGroup(d.Name))
	l, err := take(ctx, name)
	if err != nil {
		return nil, problem.New(problem.Busy, d.Name, fmt.Errorf("a command of LVM holds the volume group: %w", err))
	}
	l.remove = true
	return l, nil
}

// isLogical tells whether a device is a logical volume: others may have names like
// those, such as LUKS with "data-crypt".
func isLogical(d dm.Device) bool { return strings.HasPrefix(d.UUID, "LVM-") }

// volumeGroup is the first part of a name such as "my--group-volume": a hyphen
// within a part is doubled (dm_build_dm_name in libdm).
func volumeGroup(name string) string {
	const hyphen = "\x00"
	group, _, _ := strings.Cut(strings.ReplaceAll(name, "--", hyphen), "-")
	return strings.ReplaceAll(group, hyphen, "-")
}

// take locks a file, which whoever held it may have removed.
func take(ctx context.Context, name string) (*lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = file.Lock(int(f.Fd()))
		if err == nil && isAt(f, name) {
			return &lock{f: f}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func isAt(f *os.File, name string) bool {
	there, err := os.Stat(name)
	here, herr := f.Stat()
	return err == nil && herr == nil && os.SameFile(there, here)
}

// locked does something while no other process of ours lays or takes away.
func locked(ctx context.Context, do func() error) error {
	l, err := lockOrigins(ctx)
	if err != nil {
		return err
	}
	defer l.release()
	return do()
}

// groupsLocked does something to origins while no command of LVM changes them. Our
// lock is held.
func groupsLocked(ctx context.Context, c *dm.Control, numbers []dm.Number, do func() error) error {
	held := map[string]bool{}
	for _, n := range numbers {
		d, err := c.Status(n)
		if err != nil {
			continue // whoever needs it finds out
		}
		group := volumeGroup(d.Name)
		if !isLogical(d) || held[group] {
			continue
		}
		g, err := lockVolumeGroup(ctx, d)
		if err != nil {
			return err
		}
		defer g.release()
		held[group] = true
	}
	return do()
}

// allLocked does something to an origin under all locks that it needs.
func allLocked(ctx context.Context, c *dm.Control, n dm.Number, do func() error) error {
	return locked(ctx, func() error { return groupsLocked(ctx, c, []dm.Number{n}, do) })
}
