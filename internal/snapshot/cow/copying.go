package cow

import (
	"context"
	"slices"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/sys/process"
)

// Of a long copy (sendfile, splice, copy_file_range) the kernel asks once, at
// its beginning, and a freeze lands somewhere in it.
const (
	copyPatience  = 200 * time.Millisecond // how long is waited for those under way to end
	drainPatience = 500 * time.Millisecond // how long for threads to get on
	frozenLook    = 100 * time.Millisecond // how long is looked for them under the freeze
)

// drain waits until nobody is between the filter's check and the write that it
// was for. On a host with more to do than it can, threads may get no processor
// for long; those matter that have a file of the volumes open. (Who truncates a
// file by its path has none open; should it be caught in between and write
// after the thaw, the file is torn, which is noticed when it is read.)
func (s *set) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	stuck, err := process.Drain(ctx)
	if err != nil {
		return err
	}
	for _, task := range stuck {
		for _, t := range s.targets {
			ds, ok := process.DescriptorsInTime(task.PID, t.device)
			if !ok || slices.ContainsFunc(ds, process.Descriptor.Regular) {
				return problem.Newf(problem.FreezeBlocked, string(t.Volume()), "%s (process %d) has files of the volume open and got no processor time for %s",
					process.Name(task.PID), task.PID, drainPatience)
			}
		}
	}
	return nil
}

// among returns those of all that are copying into files of the volume.
func (t *target) among(all []process.Copying) (here []process.Copying, inodes []uint64) {
	waiting := t.filter.waiting() // after the look: who is past the gate by now was not before
	for _, c := range all {
		if c.Unsure || waiting[c.TID] {
			continue // what copies to a frozen volume comes to wait, and is sure; who is at the gate has not begun
		}
		f, ok := process.InTime(c.TID, func() (f process.File) {
			f, _ = process.FileOf(c.TID, c.To)
			return f
		})
		if ok && f.Dev == t.device {
			here, inodes = append(here, c), append(inodes, f.Ino)
		}
	}
	return here, inodes
}

// letCopiesEnd waits for those who are copying into the volumes. Those who go on
// for long are caught by the freeze, see copiesAreHot. It looks at all threads of
// the host, which takes long where many have to wait for a processor, so it does
// that once for all volumes.
func (s *set) letCopiesEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, copyPatience)
	defer cancel()
	for {
		all, err := process.CopyingTasks(ctx)
		if err != nil || !slices.ContainsFunc(s.targets, func(t *target) bool { here, _ := t.among(all); return len(here) > 0 }) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

// copiesAreHot adds the files that somebody is in the middle of copying into.
// The volumes are frozen.
func (s *set) copiesAreHot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, frozenLook)
	defer cancel()
	all, err := process.CopyingTasks(ctx)
	for _, t := range s.targets {
		here, inodes := t.among(all)
		for i, c := range here {
			t.hot = append(t.hot, hot.Use{Kind: hot.Descriptor, Inode: inodes[i], PID: c.PID, Program: process.Name(c.PID), Writes: true})
		}
	}
	return err
}
