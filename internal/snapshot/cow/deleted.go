package cow

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A deleted file that is kept keeps its blocks and its inode, which whoever
// writes to the volume may need. So the free space of the volume is looked at,
// and when it gets short, or would in a moment, nothing is kept any more: what is deleted is freed, now
// and from then on, and those files are gone from the snapshot, by name.
const (
	spareBytes  = 16 << 20 // at least so much, and 1 %, is left to those who write,
	spareInodes = 64       // or half of what is free in the beginning, if that is less
	leastBytes  = 4 << 20  // a volume with less is full: nothing is kept there at all
	leastInodes = 16
	fastest     = 4 << 30 // bytes per second that nobody fills a volume faster than
	lookMost    = 100 * time.Millisecond
	lookLeast   = 2 * time.Millisecond

	// What others took within this time, they may take again until what is let go is
	// free: a server with much to do may not let us look in time.
	reaction = time.Second
)

// A space is what is free on a volume: bytes for users without privileges, and
// inodes.
type space struct{ bytes, inodes int64 }

func (t *target) space() (free, all space, err error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(t.filter.root.Fd()), &st); err != nil {
		return free, all, err
	}
	return space{int64(st.Bavail) * st.Bsize, int64(st.Ffree)}, space{int64(st.Blocks) * st.Bsize, int64(st.Files)}, nil
}

// reserve is what is to stay free.
func reserve(free, all space) space {
	least := space{
		bytes:  max(min(max(all.bytes/100, spareBytes), free.bytes/2), leastBytes),
		inodes: max(min(max(all.inodes/100, spareInodes), free.inodes/2), leastInodes),
	}
	if all.inodes == 0 { // they are not counted
		least.inodes = 0
	}
	return least
}

// next is when to look again, and whether it is short by now.
func (s space) next(least space) (wait time.Duration, short bool) {
	if s.bytes < least.bytes || s.inodes < least.inodes {
		return 0, true
	}
	// An inode stands for a block here: making a file takes longer than
	// filling one.
	left := min(s.bytes-least.bytes, (s.inodes-least.inodes)*4096)
	return min(max(time.Duration(float64(left)/fastest*float64(time.Second)), lookLeast), lookMost), false
}

// A pace is what was free at the looks of late, oldest first.
type pace []paced

type paced struct {
	at   time.Time
	free space
}

// took is by how much it has become less, and notes what is free now. What was reserved
// in one go, as for a large file, is not taken once more within a second: it counts as far
// as a volume can be filled in that.
func (p *pace) took(now time.Time, free space) (less space) {
	*p = append(slices.DeleteFunc(*p, func(e paced) bool { return now.Sub(e.at) > reaction }), paced{now, free})
	for _, e := range *p {
		less.bytes, less.inodes = max(less.bytes, e.free.bytes-free.bytes), max(less.inodes, e.free.inodes-free.inodes)
	}
	less.bytes = min(less.bytes, int64(fastest*reaction/time.Second))
	return less
}

// A steward looks at the free space of a volume while deleted files are kept.
// It does not between Hold and Resume: what it lets go of is freed, which is a
// write.
type steward struct {
	mu    sync.Mutex
	stop  context.CancelFunc
	ended chan struct{}
	least *space // from the first look on
	short bool
}

// mindSpace starts that.
func (t *target) mindSpace() {
	s := &t.steward
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil || s.short || t.keeper == nil {
		return
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		t.watchSpace(ctx)
	}()
}

// leaveSpace ends it, and waits for the end.
func (t *target) leaveSpace() {
	s := &t.steward
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		return
	}
	s.stop()
	<-s.ended
	s.stop = nil
}

func (t *target) watchSpace(ctx context.Context) {
	s := &t.steward
	var pace pace
	for {
		wait := lookMost
		if free, all, err := t.space(); err == nil { // else again
			if s.least == nil {
				least := reserve(free, all)
				s.least = &least
			}
			less := pace.took(time.Now(), free)
			if wait, s.short = free.next(space{s.least.bytes + less.bytes, s.least.inodes + less.inodes}); s.short {
				t.letGo(ctx)
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// letGo keeps nothing any more, and names what is gone by that.
func (t *target) letGo(ctx context.Context) {
	t.keeper.LetGo()
	if t.shield == nil {
		return // not taken yet: what is deleted will not be in the snapshot
	}
	t.shield.Spare()
	todo := []uint64{t.index.Root().Number}
	for len(todo) > 0 && ctx.Err() == nil {
		in := t.index.Inode(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		switch {
		case in == nil:
		case in.IsDir():
			for _, c := range in.Children {
				todo = append(todo, c.Number)
			}
		case in.IsRegular():
			t.shield.Check(in.Number)
		}
	}
}
