package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/inode"
)

// Options of a Builder.
type Options struct {
	// Keeper, if not nil, gets a descriptor of every regular file and
	// directory, so that those that are deleted can still be read. It must be
	// closed after the index, and not while the volume is frozen.
	Keeper *inode.Keeper

	// Parallel is how many threads look at files; by default twice as many
	// as there are processors.
	Parallel int

	// Late is how many files that nobody has seen before Finish may look
	// at: those below a directory that was moved into the selection at the
	// last moment. By default 5,000, some 50 ms.
	Late int

	// Progress, if not nil, is told how many inodes there are by now. It may
	// be called from several goroutines.
	Progress func(inodes int)
}

// NotQuietError is the error of a Settle that came to no end.
type NotQuietError struct {
	Left  int   // so much is to be looked at again
	Cause error // the context's error
}

func (e *NotQuietError) Error() string {
	return fmt.Sprintf("%d changes are not looked at yet: %v", e.Left, e.Cause)
}

// Unwrap returns the cause.
func (e *NotQuietError) Unwrap() error { return e.Cause }

// TooLateError is the error of a Finish that would have had to look at too
// many new files under the freeze. After a thaw, Settle and Finish can be tried
// again.
type TooLateError struct {
	Dir  uint64 // one of the directories that were new
	Most int
}

func (e *TooLateError) Error() string {
	return fmt.Sprintf("more than %d files came into the selection at the last moment, into directory inode %d", e.Most, e.Dir)
}

// ErrInconsistent is the error of a Finish that has found that the index and
// the volume differ where no event said so.
var ErrInconsistent = errors.New("the index does not agree with the volume")

// A Builder makes an Index. Its methods are called one after the other.
type Builder struct {
	o       Options
	root    *os.File
	top     *Inode
	table   *table
	changes *fanotify.Changes
	late    *inode.Keeper // deleted files that were seen under the freeze
	workers []*worker
	mount   int // the descriptor of root
	proc    int // of /proc/self/fd
	frozen  bool
	budget  atomic.Int64 // of new files under the freeze
	total   atomic.Int64 // of inodes ever seen
	shared  interned
	faulty  atomic.Bool

	installing [16]sync.Mutex // by directory

	mu       sync.Mutex
	notes    notes
	lost     error // of reading the changes
	leads    map[uint64]*lead
	faults   map[place]error
	orphans  []uint64       // have lost their last name in the last round, or had none when they were read
	older    []uint64       // and in those before
	unread   []*Inode       // directories
	vanished []inode.Handle // led nowhere in the last round

	quit     chan struct{}
	watching sync.WaitGroup
	closed   bool
}

// A place is a name in a directory.
type place struct {
	dir  uint64
	name string
}

// Build reads the trees at paths, which are relative to the volume's root. root
// is the root of a mount of the volume that shows no other (inode.Clone). A
// selected path that is not there is no error.
func Build(ctx context.Context, root *os.File, paths []string, o Options) (_ *Builder, err error) {
	if o.Parallel <= 0 {
		o.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Late <= 0 {
		o.Late = 5000
	}
	b := &Builder{o: o, root: root, mount: int(root.Fd()), table: newTable(), proc: -1,
		notes: newNotes(), leads: map[uint64]*lead{}, faults: map[place]error{}, quit: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	top, err := newLead(paths)
	if err != nil {
		return nil, err
	}
	if b.late, err = inode.NewKeeper(0); err != nil {
		return nil, err
	}
	if b.proc, err = file.Open(file.Here, "/proc/self/fd", file.Read|file.Directory); err != nil {
		return nil, err
	}
	for range o.Parallel {
		b.workers = append(b.workers, newWorker(b))
	}
	if b.changes, err = fanotify.NewChanges(root, fanotify.Names|fanotify.Attributes|fanotify.Modified|fanotify.WriterClosed); err != nil {
		return nil, err
	}
	b.watching.Go(b.watch)
	if err := b.begin(top); err != nil {
		return nil, err
	}
	return b, b.round(ctx, notes{})
}

// begin puts the root into the table.
func (b *Builder) begin(top *lead) error {
	fd, err := file.Open(b.mount, ".", file.Place|file.Directory)
	if err != nil {
		return err
	}
	s, err := b.workers[0].look(fd, b.magic(fd))
	if err != nil {
		return err
	}
	in := s.in
	if in.Handle.Number() != in.Number {
		return fmt.Errorf("index %s: its file handles do not show inode numbers: %w", b.root.Name(), errors.ErrUnsupported)
	}
	b.top = in
	b.table.add(in.Number, nil)
	b.lead(in, top)
	b.unread = append(b.unread, in)
	return nil
}

// watchEvery is how often changes are fetched. Those that wait are merged by
// the kernel, and take kernel memory.
const watchEvery = 10 * time.Millisecond

// watch takes notes while nobody else does.
func (b *Builder) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.quit:
			return
		case <-tick.C:
			b.mu.Lock()
			b.listen()
			b.mu.Unlock()
		}
	}
}

// listen takes notes of what has changed up to now. The lock is held.
func (b *Builder) listen() {
	if b.lost == nil {
		b.lost = b.changes.Read(func(c *fanotify.Change) { b.notes.note(b.table, c) })
	}
}

// Settle looks at what has changed until at most few are left, each a name or
// an inode. It ends with a NotQuietError when ctx does before that.
func (b *Builder) Settle(ctx context.Context, few int) error {
	for {
		left, err := b.left()
		if err != nil {
			return err
		}
		if left <= few && len(b.unread) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return &NotQuietError{left, ctx.Err()}
		}
		if err := b.round(ctx, b.take()); err != nil {
			if ctx.Err() != nil {
				left, _ = b.left()
				return &NotQuietError{left, ctx.Err()}
			}
			return err
		}
	}
}

// left tells how much is noted by now.
func (b *Builder) left() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listen()
	b.notes.prune(b.table)
	return b.notes.len(), b.lost
}

// take takes the notes but for what was opened.
func (b *Builder) take() notes {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.notes
	b.notes = newNotes()
	b.notes.opened, taken.opened = taken.opened, nil
	return taken
}

// Watchful notes what is opened from now on, too, for Finish. It is called
// before a search for what is open for writing, of which Finish is told.
func (b *Builder) Watchful() error {
	if err := b.changes.Silence(); err != nil {
		return err
	}
	return b.changes.Add(fanotify.Opened)
}

// Finish makes the index of the instant. The volume is frozen, and stays so
// until it returns. also are the numbers of inodes that may have changed without
// an event. Its time depends on what has changed, not on what there is, but that
// the list of names of a directory is copied when it has changed. It writes
// nothing and lets go of no deleted file. After a failure, and a thaw, Settle
// and Finish can be tried again.
func (b *Builder) Finish(also []uint64) (*Index, error) {
	if b.closed {
		return nil, os.ErrClosed
	}
	b.frozen = true
	defer func() { b.frozen = false }()
	if _, err := b.left(); err != nil {
		return nil, err
	}
	taken := b.take()
	b.mu.Lock()
	for h := range b.notes.opened {
		if b.table.holds(h) {
			taken.inodes[h] = struct{}{}
		}
	}
	b.mu.Unlock()
	for _, number := range also {
		if in := b.table.get(number); in != nil {
			taken.inodes[in.Handle] = struct{}{}
		}
	}
	b.budget.Store(int64(b.o.Late))
	if err := b.round(context.Background(), taken); err != nil {
		return nil, err
	}
	for _, h := range b.vanished {
		if b.table.holds(h) && b.table.get(h.Number()).indexed() {
			return nil, fmt.Errorf("inode %d is gone: %w", h.Number(), ErrInconsistent)
		}
	}
	close(b.quit) // watch only waits for the time
	x := &Index{table: b.table, root: b.top, orphans: append(b.older, b.orphans...), done: b.end}
	for at, err := range b.faults {
		x.faults = append(x.faults, Fault{at.dir, at.name, err})
	}
	b.closed = true
	return x, nil
}

// Close ends a Builder that has made no Index; after a Finish it does nothing.
// The volume must not be frozen.
func (b *Builder) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	close(b.quit)
	return b.end()
}

// end closes what was for building.
func (b *Builder) end() error {
	b.watching.Wait()
	var errs []error
	if b.changes != nil {
		errs = append(errs, b.changes.Close())
	}
	if b.late != nil {
		errs = append(errs, b.late.Close())
	}
	if b.proc >= 0 {
		errs = append(errs, file.Close(b.proc))
	}
	return errors.Join(errs...)
}
