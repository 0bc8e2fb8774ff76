package index

import (
	"context"
	"errors"
	"slices"
	"sync"

	"stillpoint/internal/sys/inode"
)

// pieceSize is how many names or inodes are one piece of work.
const pieceSize = 256

// A work is what one round is to do. Pieces of directories that are open go
// before further directories, so that few are open at a time.
type work struct {
	mu      sync.Mutex
	changed sync.Cond
	pieces  []func(*worker) error
	unread  []*Inode
	whole   map[*Inode]bool // directories that are being read
	open    map[*reading]bool
	active  int
	err     error
}

// round looks at all that is noted, and at the directories that are unread,
// with all that comes to light by it.
func (b *Builder) round(ctx context.Context, n notes) error {
	w := &work{unread: b.unread, whole: map[*Inode]bool{}, open: map[*reading]bool{}}
	w.changed.L = &w.mu
	b.unread, b.vanished = nil, nil
	for dir, names := range n.names {
		w.pieces = append(w.pieces, func(worker *worker) error { return worker.names(w, dir, names) })
	}
	handles := make([]inode.Handle, 0, len(n.inodes))
	for h := range n.inodes {
		handles = append(handles, h)
	}
	// Each worker gets some of them, also of few.
	size := min(pieceSize, len(handles)/len(b.workers)+1)
	for piece := range slices.Chunk(handles, size) {
		w.pieces = append(w.pieces, func(worker *worker) error { return worker.inodes(piece) })
	}
	stop := context.AfterFunc(ctx, func() { w.fail(ctx.Err()) })
	defer stop()
	var all sync.WaitGroup
	for _, worker := range b.workers {
		all.Go(func() { w.run(worker) })
	}
	all.Wait()
	if b.o.Keeper != nil {
		w.fail(b.o.Keeper.Flush())
	}
	w.fail(b.late.Flush())
	if w.err != nil {
		return errors.Join(w.err, b.again(w, n))
	}
	if !b.frozen {
		b.sweep()
	}
	return nil
}

// again keeps what a round has not done for the next one.
func (b *Builder) again(w *work, n notes) error {
	var errs []error
	for r := range w.open {
		errs = append(errs, r.end(b))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes.join(n)
	b.unread = append(b.unread, w.unread...)
	for dir := range w.whole {
		b.unread = append(b.unread, dir)
	}
	return errors.Join(errs...)
}

// leadOf returns what is wanted of a directory.
func (b *Builder) leadOf(dir *Inode) *lead {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leads[dir.Number]
}

// lead sets what is wanted of a directory, and tells whether that is
// something else than before.
func (b *Builder) lead(dir *Inode, l *lead) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = b.leads[dir.Number] != l
	if l == nil {
		delete(b.leads, dir.Number)
	} else {
		b.leads[dir.Number] = l
	}
	return changed
}

// sweep forgets what has lost its last name a round ago and has found none
// since: in between, a file that is being renamed can have none.
func (b *Builder) sweep() {
	b.mu.Lock()
	todo, last := b.older, b.orphans
	b.orphans = nil
	b.mu.Unlock()
	// What has a name by now is entered again when it loses that.
	b.older = slices.DeleteFunc(last, func(number uint64) bool { return b.table.get(number).indexed() })
	for len(todo) > 0 {
		in := b.table.forget(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		if in == nil {
			continue
		}
		b.lead(in, nil)
		b.empty(in)
	}
}

// empty takes back the names in a directory that is gone, or not in the table
// any more.
func (b *Builder) empty(dir *Inode) {
	lock := b.lockOf(dir)
	lock.Lock()
	defer lock.Unlock()
	for _, c := range dir.Children {
		b.removed(c.Number, dir)
	}
	dir.Children = nil
}

// lockOf is the lock for the names in a directory.
func (b *Builder) lockOf(dir *Inode) *sync.Mutex {
	return &b.installing[dir.Number%uint64(len(b.installing))]
}

// removed takes back a name.
func (b *Builder) removed(number uint64, dir *Inode) {
	if b.table.remove(number, dir) == 0 {
		b.orphan(number)
	}
}

// orphan notes an inode that has no name now.
func (b *Builder) orphan(number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orphans = append(b.orphans, number)
}

func (w *work) fail(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
}

// add adds pieces and unread directories.
func (w *work) add(pieces []func(*worker) error, unread ...*Inode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pieces = append(w.pieces, pieces...)
	w.unread = append(w.unread, unread...)
	w.changed.Broadcast()
}

// began notes a reading.
func (w *work) began(r *reading) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[r] = true
}

// done ends a reading, and maybe asks for another one of the same directory.
func (w *work) done(r *reading, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, r)
	if r.whole {
		delete(w.whole, r.dir)
	}
	if again {
		w.unread = append(w.unread, r.dir)
		w.changed.Broadcast()
	}
}

// run does what there is until nothing is left and nobody can find more.
func (w *work) run(by *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil {
		var do func(*worker) error
		var dir *Inode
		if n := len(w.pieces); n > 0 {
			do, w.pieces = w.pieces[n-1], w.pieces[:n-1]
		} else if n := len(w.unread); n > 0 {
			dir, w.unread = w.unread[n-1], w.unread[:n-1]
			w.whole[dir] = true
		} else if w.active == 0 {
			return
		} else {
			w.changed.Wait()
			continue
		}
		w.active++
		w.mu.Unlock()
		var err error
		if dir != nil {
			err = by.read(w, dir)
		} else {
			err = do(by)
		}
		w.mu.Lock()
		w.active--
		if err != nil && w.err == nil {
			w.err = err
		}
		if w.active == 0 || err != nil {
			w.changed.Broadcast()
		}
	}
}
