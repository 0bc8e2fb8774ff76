package cachefile

import (
	"fmt"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/thinpool"
)

// The free space where a file lies is looked at the more often the less there
// is: at that rate nobody fills it between two looks.
const (
	fastest = 2 << 30 // bytes a second
	seldom  = 250 * time.Millisecond
	often   = 2 * time.Millisecond
)

// leaveRoom fails when so little is left on the volume that other programs
// would soon fail to write. What is reserved is ours already. btrfs counts what
// was written only when it commits, every 30 s, so there this comes late.
func (f *File) leaveRoom(used int64) error {
	last := f.checked.Load()
	if f.limits.Keep <= 0 || used <= f.limits.Initial || used-last < lookEvery || !f.checked.CompareAndSwap(last, used) {
		return nil
	}
	free, err := f.free()
	if err != nil {
		return err
	}
	if free < f.limits.Keep {
		err := f.lose(problem.Newf(problem.CacheFull, f.dir,
			"only %d MiB are free on the volume of the cache file, and %d MiB are left to others", max(0, free)>>20, f.limits.Keep>>20))
		f.giveUp()
		return err
	}
	return nil
}

// lookEvery is how much is saved between two looks at the free space.
const lookEvery = 8 << 20

// free is what is left to others when all is written that waits to be.
func (f *File) free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(f.fd, &st); err != nil {
		return 0, f.lose(problem.New(problem.CacheLost, f.dir, fmt.Errorf("free space: %w", err)))
	}
	// What was reserved at the beginning takes nothing more.
	waiting := min(f.behind.waiting(), max(0, f.used.Load()-f.limits.Initial))
	return int64(st.Bavail)*st.Frsize - waiting, nil
}

// watch looks at the free space, which others use, too, until the file is lost
// or closed. A lost file gives its blocks back at once.
func (f *File) watch() {
	wait := time.NewTimer(seldom)
	defer wait.Stop()
	for {
		select {
		case <-f.quit:
			return
		case <-f.useless:
			f.end()
			return
		case <-wait.C:
			wait.Reset(f.look())
		}
	}
}

// look ends the file before it is in the way of others, and returns when to
// look again.
func (f *File) look() time.Duration {
	if why := f.limits.Short(); why != "" {
		_ = f.lose(problem.Newf(problem.CacheFull, f.dir, "the cache file has ended itself: %s", why))
		f.giveUp()
		return seldom
	}
	if f.limits.Floor <= 0 {
		return seldom
	}
	free, err := f.free()
	if err == nil && free < f.limits.Floor {
		err = f.lose(problem.Newf(problem.CacheFull, f.dir,
			"only %d MiB are left free on the volume of the cache file, which has ended itself to make room", max(0, free)>>20))
	}
	if err != nil {
		f.giveUp()
		return seldom
	}
	return min(seldom, max(often, time.Duration(free-f.limits.Floor)*time.Second/fastest))
}

// Short says why nothing more is to be written to the thin pools below the cache file;
// it is empty where something may.
func (l Limits) Short() string {
	if len(l.Pools) == 0 {
		return ""
	}
	return short(l.Pools)
}

var short = thinpool.Short

// giveUp is for a file that nothing more will be read from.
func (f *File) giveUp() { f.once.Do(func() { close(f.useless) }) }
