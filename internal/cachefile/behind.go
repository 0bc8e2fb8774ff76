package cachefile

import (
	"context"
	"errors"
	"math/bits"
	"sync"

	"stillpoint/internal/sys/file"
)

// memory is the most of one cache file that waits to be written.
const memory = 128 << 20

// perPiece is how many units a piece has: as many as its mask has bits.
const perPiece = pieces / unit

// A behind is what was saved and is not written to the file yet. Whoever saves
// waits for memory and never for the file, whose volume may be slow, or frozen.
// A slot is an aligned piece of the file, so what lies side by side is written
// together. One goroutine writes, in the order in which slots got something.
type behind struct {
	fd   int
	most int                       // slots
	lost func(at int64, err error) // is told of a write that failed

	spare sync.Pool // of *[pieces]byte

	mu      sync.Mutex
	changed *sync.Cond // whatever somebody may wait for
	slots   map[int64]*slot
	queue   []*slot // that have something to be written, each once
	held    int64   // bytes that are not written
	pauses  int
	hasty   int  // of these, how many would rather lose the file than wait
	busy    bool // somebody is about the file
	over    bool // nothing is written or read any more
	closed  bool
}

// A slot is a piece of the file in memory. Its mask has a bit for each unit that
// was saved and is not written.
type slot struct {
	place  int64 // in the file, in pieces
	buf    *[pieces]byte
	mask   uint64
	users  int // who read it, fill it, or write it
	queued bool
}

var (
	errNoRoom = errors.New("the memory for what waits to be written is full")
	errOver   = errors.New("nothing is taken any more")
)

func newBehind(fd int, memory int64, lost func(int64, error)) *behind {
	b := &behind{fd: fd, most: max(1, int(memory/pieces)), lost: lost, slots: map[int64]*slot{}}
	b.changed = sync.NewCond(&b.mu)
	b.spare.New = func() any { return new([pieces]byte) }
	return b
}

// until waits with mu held until something is so.
func (b *behind) until(ctx context.Context, so func() bool) error {
	if so() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changed.Broadcast()
	})
	defer stop()
	for !so() {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.changed.Wait()
	}
	return nil
}

// put lets fill fill up to n bytes of memory for the place at, within one piece.
// It waits for room.
func (b *behind) put(ctx context.Context, at, n int64, fill func([]byte) (int, error)) (int64, error) {
	s, err := b.pin(ctx, at/pieces)
	if err != nil {
		return 0, err
	}
	from := at % pieces
	p := s.buf[from:min(from+n, pieces)]
	got, err := fill(p)
	end := from + int64(got)
	clear(s.buf[end:roundUp(end)]) // which may hold what was there before
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && b.over {
		err = errOver
	}
	if err == nil && got > 0 {
		s.mask |= maskOf(from/unit, roundUp(end)/unit)
		b.held += roundUp(end) - from
		b.enqueue(s)
	}
	b.unpin(s)
	return int64(got), err
}

// maskOf has the bits of the units [from, end).
func maskOf(from, end int64) uint64 { return ^uint64(0) >> (perPiece - (end - from)) << from }

// pin returns the slot of a place, which stays until it is unpinned.
func (b *behind) pin(ctx context.Context, place int64) (*slot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.until(ctx, func() bool { return b.over || b.hasty > 0 || b.slots[place] != nil || len(b.slots) < b.most })
	if err != nil {
		return nil, err
	}
	s := b.slots[place]
	switch {
	case b.over:
		return nil, errOver
	case s == nil && len(b.slots) >= b.most:
		return nil, errNoRoom
	case s == nil:
		s = &slot{place: place, buf: b.spare.Get().(*[pieces]byte)}
		b.slots[place] = s
	}
	s.users++
	return s, nil
}

// unpin is called with mu held.
func (b *behind) unpin(s *slot) {
	s.users--
	b.free(s)
	b.changed.Broadcast()
}

// free gives the memory of a slot back that nobody needs.
func (b *behind) free(s *slot) {
	if s.users == 0 && s.mask == 0 {
		delete(b.slots, s.place)
		b.spare.Put(s.buf)
	}
}

// enqueue is called with mu held.
func (b *behind) enqueue(s *slot) {
	if !s.queued {
		s.queued = true
		b.queue = append(b.queue, s)
	}
}

// read copies what of p lies in memory, or tells how much of it does not.
func (b *behind) read(p []byte, at int64) (copied, missing int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, 0, errOver
	}
	from := at % pieces
	p = p[:min(int64(len(p)), pieces-from)]
	s := b.slots[at/pieces]
	if s == nil {
		return 0, len(p), nil
	}
	ahead := s.mask >> (from / unit)
	if ahead&1 == 0 {
		return 0, min(len(p), bits.TrailingZeros64(ahead)*unit-int(from%unit)), nil
	}
	p = p[:min(len(p), bits.TrailingZeros64(^ahead)*unit-int(from%unit))]
	s.users++
	b.mu.Unlock()
	n := copy(p, s.buf[from:])
	b.mu.Lock()
	b.unpin(s)
	return n, 0, nil
}

// run writes until the file is closed, or over.
func (b *behind) run() {
	for {
		s, mask := b.next()
		if s == nil {
			return
		}
		at, err := b.write(s, mask)
		if err != nil {
			b.lost(at, err) // before anybody may take notice that it is over
		}
		b.written(s, mask, err)
	}
}

// next waits for something to write.
func (b *behind) next() (*slot, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.over && !b.closed && (b.pauses > 0 || b.busy || len(b.queue) == 0) {
		b.changed.Wait()
	}
	if b.over || b.closed {
		return nil, 0
	}
	s := b.queue[0]
	b.queue = b.queue[1:]
	s.queued, b.busy = false, true
	s.users++
	return s, s.mask
}

// write writes the units of a slot, each run of them at once.
func (b *behind) write(s *slot, mask uint64) (at int64, err error) {
	for mask != 0 {
		from := int64(bits.TrailingZeros64(mask))
		end := from + int64(bits.TrailingZeros64(^(mask >> from)))
		at = s.place*pieces + from*unit
		if _, err := file.WriteAt(b.fd, s.buf[from*unit:end*unit], at); err != nil {
			return at, err
		}
		mask &^= maskOf(from, end)
	}
	return 0, nil
}

// written takes note of what is in the file now.
func (b *behind) written(s *slot, mask uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	if err != nil {
		b.abandon()
	}
	if !b.over {
		s.mask &^= mask
		b.held -= int64(bits.OnesCount64(mask)) * unit
	}
	b.unpin(s)
}

// abandon forgets what is not written, which is never read then. It is called
// with mu held.
func (b *behind) abandon() {
	b.over, b.queue, b.held = true, nil, 0
	for _, s := range b.slots {
		s.mask = 0
		b.free(s)
	}
	b.changed.Broadcast()
}

// waiting is how many bytes are not written.
func (b *behind) waiting() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// isOver tells whether what was read from the file may not count.
func (b *behind) isOver() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over
}
