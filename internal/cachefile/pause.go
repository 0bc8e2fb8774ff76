package cachefile

import (
	"context"
	"sync"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// Pause stops writing to the file until resume is called, which may be done
// more than once. When it returns, no write is under way. What is saved
// meanwhile stays in memory. If that is full, a Save waits, or, where the pause
// is hasty, fails at once with the code cache-full, and the file is lost: for who
// holds others up meanwhile.
func (f *File) Pause(ctx context.Context, hasty bool) (resume func(), err error) {
	b := f.behind
	n := 0
	if hasty {
		n = 1
	}
	end := sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pauses--
		b.hasty -= n
		b.changed.Broadcast()
	})
	b.mu.Lock()
	b.pauses++
	b.hasty += n
	err = b.until(ctx, func() bool { return !b.busy })
	b.mu.Unlock()
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// Flush waits until all that was saved before is in the file, and no memory is
// taken.
func (f *File) Flush(ctx context.Context) error {
	b := f.behind
	b.mu.Lock()
	err := b.until(ctx, func() bool { return b.over || len(b.slots) == 0 && !b.busy })
	over := b.over
	b.mu.Unlock()
	if err == nil && over {
		err = f.Err()
	}
	return err
}

// end forgets what is not written and gives the blocks of a lost file back. It
// waits for the end of a pause: a frozen volume takes no blocks back.
func (f *File) end() {
	b := f.behind
	b.mu.Lock()
	b.abandon()
	for !b.closed && (b.busy || b.pauses > 0) {
		b.changed.Wait()
	}
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.busy = true
	b.mu.Unlock()
	// ext4 lets nobody have freed blocks before its journal has them
	// (ext4_mb_clear_bb), so that is not left to its next commit. There is
	// nobody left to be told of a failure: the file is lost, and closed soon.
	if file.Truncate(f.fd, 0) == nil {
		_ = file.SyncData(f.fd)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	b.changed.Broadcast()
}

// noRoom is for a hasty pause.
func (f *File) noRoom() error {
	return f.lose(problem.Newf(problem.CacheFull, f.dir,
		"the volume of the cache file stands still, and the %d MiB of memory that stand in for it are full", int64(f.behind.most)*pieces>>20))
}
