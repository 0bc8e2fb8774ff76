package cow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/snapshot/cow/view"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/flagfile"
	"stillpoint/internal/sys/inode"
	"stillpoint/internal/sys/opened"
	"stillpoint/internal/volume"
)

// few is how many changed files may be looked at again under the freeze.
const few = 200

// A target is one volume of a set, and once captured its snapshot.
type target struct {
	set    *set
	target snapshot.Target

	filter  *filter
	cache   *cache
	keeper  *inode.Keeper
	builder *index.Builder
	touched *fanotify.Changes // of attributes, since the instant
	hot     []hot.Use         // what can change unseen
	written []hot.Use         // and what else is open for writing
	early   map[uint64]*early
	stats   map[uint64]inode.Attributes // of hot files that are to be copied early
	frozen  atomic.Bool
	steward steward

	leased   map[uint64]opened.Lease // files with a lease for writing
	borrowed borrowed                // descriptors of their holders

	device uint64 // as stat says of its files
	statfs view.Statfs
	flags  *flagfile.File // of files that may have begun to change
	index  *index.Index
	shield *shield.Shield
	taken  time.Time
	shut   time.Time     // since then nobody passes
	held   time.Duration // until the thaw

	lent lending // to who reads without the view

	lost     atomic.Pointer[error] // why the snapshot is given up
	losable  atomic.Pointer[shield.Shield]
	mu       sync.Mutex
	view     *view.View
	released bool

	// faultsMu is for what a shield asks for and tells, while it has locks of
	// its own.
	faultsMu sync.Mutex
	faults   []fault
	altered  map[uint64]inode.Time // mtimes of inodes just after their attributes were set since the instant
}

// prepare does what takes long.
func (t *target) prepare(ctx context.Context, place cachefile.Placement, i int) (err error) {
	if t.filter, err = t.set.p.acquire(t.target.Volume); err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(t.filter.root.Fd()), &st); err != nil {
		return err
	}
	t.device = st.Dev
	if t.cache, err = t.set.newCache(place, i); err != nil {
		return err
	}
	if t.keeper, err = inode.NewKeeper(t.set.p.o.Keep); err != nil {
		return err
	}
	t.mindSpace()
	if t.builder, err = index.Build(ctx, t.filter.root, t.target.Paths, index.Options{Keeper: t.keeper}); err != nil {
		return err
	}
	if t.touched, err = fanotify.NewChanges(t.filter.root, fanotify.Attributes|fanotify.Renamed); err != nil {
		return err
	}
	if t.statfs, err = statfs(t.filter.root); err != nil {
		return err
	}
	if t.flags, err = flagfile.New(); err != nil {
		return err
	}
	return t.settle(ctx)
}

// settle brings the index up to date.
func (t *target) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.set.p.o.Quiet)
	defer cancel()
	err := t.builder.Settle(ctx, t.set.p.o.few)
	var busy *index.NotQuietError
	if errors.As(err, &busy) {
		return problem.New(problem.NoQuietTime, string(t.Volume()), err)
	}
	return err
}

// thaw ends the freeze, and gives the snapshot up if somebody else did.
func (t *target) thaw() error {
	if !t.frozen.CompareAndSwap(true, false) {
		return nil
	}
	defer func() { t.held = time.Since(t.shut); t.borrowed.giveBack() }()
	late, err := t.file().Thaw()
	if late {
		t.lose(errLate)
	}
	return err
}

// capture fixes the instant of one volume, which is frozen.
func (t *target) capture(ctx context.Context, instant time.Time) (err error) {
	if t.index, err = t.builder.Finish(slices.Concat(inodes(t.hot), inodes(t.written))); err != nil {
		return err
	}
	t.taken = instant // before anybody notes what is announced since then
	if err = t.forgetTouched(); err != nil {
		return err
	}
	t.shield = shield.New(t.index, int(t.filter.root.Fd()), t.originals(), shield.Options{
		Touched: t.explained, Distrusted: t.distrusted(), Instant: instant, Flags: t.flags, Fault: t.fault,
	})
	t.losable.Store(t.shield)
	if err := t.lost.Load(); err != nil {
		t.shield.Lose(*err)
	}
	return t.copyHot(ctx)
}

// originals is where they are saved.
func (t *target) originals() shield.Cache {
	if through := t.set.p.o.through; through != nil {
		return through(t.cache.File)
	}
	return t.cache.File
}

// failed gives an error of the target the code of a failed snapshot, unless it
// has one.
func (t *target) failed(step string, err error) error {
	err = fmt.Errorf("%s %s: %w", step, t.Volume(), err)
	var coded *problem.Problem
	if errors.As(err, &coded) {
		return err
	}
	return problem.New(problem.SnapshotFailed, string(t.Volume()), err)
}

// ID is the set's and the volume's.
func (t *target) ID() string { return t.set.id + "/" + string(t.Volume()) }

// Volume is the target's.
func (t *target) Volume() volume.ID { return t.target.Volume.ID }

// Parts is the volume alone.
func (t *target) Parts() []snapshot.Part {
	return []snapshot.Part{{Path: ".", Volume: t.Volume(), Taken: t.taken, Frozen: true, Held: t.held}}
}

// Cached is how much room the originals take that were saved by now.
func (t *target) Cached() int64 { return t.cache.Stats().Used }

// Err is nil as long as all that was to be saved could be.
func (t *target) Err() error {
	if err := t.lost.Load(); err != nil {
		return *err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return problem.Newf(problem.SnapshotLost, t.ID(), "it was released")
	}
	if err := t.saved(); err != nil {
		t.lose(err)
		return *t.lost.Load()
	}
	return nil
}

// lose gives the snapshot up. It waits for nobody, who may be stuck.
func (t *target) lose(err error) {
	err = problem.New(problem.SnapshotLost, t.ID(), err)
	t.lost.CompareAndSwap(nil, &err)
	if s := t.losable.Load(); s != nil {
		s.Lose(*t.lost.Load())
	}
}

// Release ends the snapshot and lets go of everything.
func (t *target) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return nil
	}
	t.released = true
	t.leaveSpace()
	t.borrowed.giveBack()
	var errs []error
	var wait func()
	if t.shield != nil {
		errs = append(errs, t.endLending())
		stuck, err := t.filter.remove(t.shield)
		wait, errs = stuck, append(errs, err)
	}
	if t.view != nil {
		errs = append(errs, t.view.Close())
	}
	if wait == nil {
		errs = append(errs, t.close())
	} else {
		errs = append(errs, errStuck)
		go func() {
			wait()
			_ = t.close() // nobody is there to be told
		}()
	}
	errs = append(errs, t.set.gone())
	if err := errors.Join(errs...); err != nil {
		return problem.New(problem.ReleaseFailed, t.ID(), err)
	}
	return nil
}

var _ snapshot.Snapshot = (*target)(nil)
