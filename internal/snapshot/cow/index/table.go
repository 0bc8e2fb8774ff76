package index

import (
	"sync"
	"sync/atomic"

	"stillpoint/internal/sys/inode"
)

// shardCount is how many goroutines can be at the table at once, about.
const shardCount = 64

// A table holds inodes by number. What Inode.names counts is counted here.
type table struct {
	count  atomic.Int64 // of inodes with names
	shards [shardCount]shard
}

type shard struct {
	mu     sync.Mutex // for the map, and for all of the inodes in it but their children
	inodes map[uint64]*Inode
	slab   []Inode // not used yet
}

// slabSize is how many inodes are allocated at once.
const slabSize = 64

func newTable() *table {
	t := &table{}
	for i := range t.shards {
		t.shards[i].inodes = map[uint64]*Inode{}
	}
	return t
}

// shard is the one for a number. Neighbours go to different ones.
func (t *table) shard(number uint64) *shard { return &t.shards[number%shardCount] }

// peek returns an inode without a lock: only once the table is complete.
func (t *table) peek(number uint64) *Inode { return t.shard(number).inodes[number] }

// get returns an inode, nil if it is not there.
func (t *table) get(number uint64) *Inode {
	s := t.shard(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inodes[number]
}

// holds tells whether the very inode of a handle is there.
func (t *table) holds(h inode.Handle) bool {
	s := t.shard(h.Number())
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.inodes[h.Number()]
	return in != nil && in.Handle == h
}

// put stores what was seen of an inode: in place of what was seen of it before,
// or of an earlier inode with the same number, which must be gone. That one is
// returned.
func (t *table) put(seen *Inode) (in, earlier *Inode, isNew bool) {
	s := t.shard(seen.Number)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.inodes[seen.Number]
	if old != nil && old.Handle == seen.Handle {
		old.update(seen)
		return old, nil, false
	}
	if len(s.slab) == 0 {
		s.slab = make([]Inode, slabSize)
	}
	in, s.slab = &s.slab[0], s.slab[1:]
	*in = *seen
	if old != nil {
		in.names, in.parent = old.names, old.parent // the names are counted by number
	}
	s.inodes[seen.Number] = in
	return in, old, true
}

// setDirFlags adds flags that a look does not see.
func (t *table) setDirFlags(number uint64, flags uint32) {
	s := t.shard(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.inodes[number]; in != nil {
		in.Flags = in.Flags&^dirFlags | flags
	}
}

// add counts a name in dir for a number.
func (t *table) add(number uint64, dir *Inode) {
	s := t.shard(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.inodes[number]; in != nil {
		in.parent = dir
		if atomic.AddInt32(&in.names, 1) == 1 {
			t.count.Add(1)
		}
	}
}

// remove takes back a name in dir for a number and returns how many are left.
func (t *table) remove(number uint64, dir *Inode) int {
	left := t.drop(number)
	s := t.shard(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.inodes[number]; in != nil && in.parent == dir {
		in.parent = nil
	}
	return left
}

// drop is remove for when the directory itself is gone.
func (t *table) drop(number uint64) int {
	s := t.shard(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.inodes[number]
	if in == nil {
		return -1
	}
	left := atomic.AddInt32(&in.names, -1)
	if left == 0 {
		t.count.Add(-1)
	}
	return int(left)
}

// forget takes an inode without names out of the table, and returns it.
func (t *table) forget(number uint64) *Inode {
	s := t.shard(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.inodes[number]
	if in == nil || in.names > 0 {
		return nil
	}
	delete(s.inodes, number)
	return in
}
