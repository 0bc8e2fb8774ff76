package backup

import (
	"context"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
	"stillpoint/internal/volume"
)

// checkpoints are the unfinished trees of this run that the repository keeps,
// by path, so that a next run finds what was done.
type checkpoints struct {
	mu   sync.Mutex
	last map[string]*repository.Backup
}

func (c *checkpoints) save(ctx context.Context, w *repository.Writer, b repository.Backup, t repository.Tree) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	saved, err := w.Checkpoint(ctx, b, t, c.last[t.Path])
	if err == nil {
		c.last[t.Path] = saved
	}
	return err
}

func (c *checkpoints) forget(ctx context.Context, w *repository.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.last {
		if err := w.Forget(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// lookBack finds earlier trees of each source, by its path, and how much the last
// of them held.
func (b *backing) lookBack(ctx context.Context) (previous map[string][]repository.Tree, files, bytes int64, err error) {
	previous = map[string][]repository.Tree{}
	for _, s := range b.plan.sources {
		p, err := b.repo.Previous(ctx, s.path)
		if err != nil {
			return nil, 0, 0, err
		}
		previous[s.path] = p
		for _, t := range p {
			if t.Incomplete {
				b.report.Resumed = true
				b.event(job.Event{Step: job.StepStore, Path: s.path, Text: "goes on where an interrupted backup ended"})
				continue
			}
			if t.Root.Summary != nil {
				files, bytes = files+t.Root.Summary.TotalFileCount, bytes+t.Root.Summary.TotalFileSize
			}
		}
	}
	return previous, files, bytes, nil
}

// storeAll reads all sources into the repository, as long as no snapshot is given up.
func (b *backing) storeAll(ctx context.Context, w *repository.Writer, rules *rules) (points *checkpoints, err error) {
	err = b.cap.while(ctx, func(ctx context.Context) error {
		points, err = b.store(ctx, w, rules)
		return err
	})
	return points, err
}

// store reads all sources into the repository.
func (b *backing) store(ctx context.Context, w *repository.Writer, rules *rules) (*checkpoints, error) {
	points := &checkpoints{last: map[string]*repository.Backup{}}
	previous, files, bytes, err := b.lookBack(ctx)
	if err != nil {
		return points, err
	}
	stop := b.expect(ctx, files, bytes, rules)
	defer stop()
	for i, s := range b.plan.sources {
		o := b.storeOptions(w, points, s, previous[s.path])
		t, err := b.storeOne(ctx, w, &s, rules, o)
		if problem.Is(err, problem.FileOpen) {
			b.exception(job.StepStore, s.path, err)
			continue
		}
		if err != nil {
			return points, err
		}
		b.rec.Trees = append(b.rec.Trees, t)
		if i < len(b.plan.sources)-1 && o.Checkpoint != nil {
			if err := o.Checkpoint(ctx, t); err != nil {
				return points, err
			}
		}
	}
	return points, b.something()
}

// something is an error where nothing at all is stored.
func (b *backing) something() error {
	if len(b.rec.Trees) > 0 {
		return nil
	}
	return problem.Newf(problem.FileOpen, "", "all that was selected is open for writing, and left out (open_files: %s)", b.o.OpenFiles)
}

func (b *backing) storeOne(ctx context.Context, w *repository.Writer, s *source, rules *rules, o repository.StoreOptions) (repository.Tree, error) {
	r, err := s.reading(b.cap)
	if err != nil {
		return repository.Tree{}, err
	}
	defer r.close()
	if err := b.settle(s); err != nil {
		return repository.Tree{}, err
	}
	o.Instant = b.instant(*s)
	r.Leave = rules.leave
	r.Left = func(path, reason string) {
		switch {
		case reason == reasonGap:
		case b.live(*s) && s.isStub(path):
		case rules.knows(reason):
			b.leftOut(job.StepStore, path, "", reason)
		default:
			// The reader met a file system that is not in the plan: it is
			// new, or we may not list the nested subvolumes.
			b.leftOut(job.StepStore, path, problem.VolumeLate, reason)
		}
	}
	return w.Store(ctx, r.Source, o)
}

// settle makes the times of live files tell of stores into mapped pages, too.
func (b *backing) settle(s *source) error {
	settle := func(v volume.Volume, path string) error {
		if b.cap.snaps[v.ID] != nil || v.Kind != volume.Local {
			return nil
		}
		return tree.SyncVolume(path)
	}
	err := settle(s.place.volume, s.path)
	for _, g := range s.grafts {
		if err == nil && !g.empty && g.within == "" { // a nested subvolume is of the same file system
			err = settle(g.place.volume, g.path)
		}
	}
	return err
}

// instant is the earliest of what is read: that of the snapshots, or now, where
// everything is read live.
func (b *backing) instant(s source) time.Time {
	snapped := func(at place) bool { return b.cap.snaps[at.volume.ID] != nil }
	if snapped(s.place) || slices.ContainsFunc(s.grafts, func(g graft) bool { return !g.empty && snapped(g.place) }) {
		return b.at
	}
	return b.e.now()
}

func (b *backing) storeOptions(w *repository.Writer, points *checkpoints, s source, previous []repository.Tree) repository.StoreOptions {
	o := repository.StoreOptions{
		Previous:  previous,
		Added:     b.notes(s),
		Live:      func(vol string) bool { return !b.inSnapshot(volume.ID(vol)) },
		Exception: func(path string, err error) { b.exception(job.StepStore, path, b.because(path, err)) },
		Interval:  b.o.Checkpoint,
		Parallel:  b.o.Parallel,
	}
	if b.watch != nil && b.live(s) {
		o.Opened = b.opened
	}
	if b.o.Checkpoint != 0 {
		o.Checkpoint = func(ctx context.Context, t repository.Tree) error {
			// A next run would take its content for good.
			if err := b.cap.ask(); err != nil {
				return err
			}
			rec := b.rec
			rec.Ended = b.e.now()
			return points.save(ctx, w, rec, t)
		}
	}
	return o
}

// live tells whether any part of a source is read from the live file system.
func (b *backing) live(s source) bool {
	if b.cap.snaps[s.place.volume.ID] == nil {
		return true
	}
	for _, g := range s.grafts {
		if !g.empty && b.cap.snaps[g.place.volume.ID] == nil {
			return true
		}
	}
	return false
}

// expect tells who watches how much there may be to do: what the last backup
// held, or else what a walk counts that runs beside the storing.
func (b *backing) expect(ctx context.Context, files, bytes int64, rules *rules) (stop func()) {
	if b.o.Expect == nil {
		return func() {}
	}
	if files > 0 {
		b.o.Expect(files, bytes)
		return func() {}
	}
	if !b.o.Counted {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		var n tally
		for _, s := range b.plan.sources {
			r, err := s.reading(b.cap)
			if err != nil {
				return // the storing meets the same error and says so
			}
			r.Leave = rules.leave
			n.source(ctx, r.Source)
			r.close()
		}
		if ctx.Err() == nil {
			b.o.Expect(n.files, n.bytes)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// A tally counts files by looking at names only.
type tally struct{ files, bytes int64 }

func (n *tally) source(ctx context.Context, src tree.Source) {
	root, err := tree.Open(src)
	if err != nil {
		return // the storing meets the same error and says so
	}
	defer root.Close()
	if root.Dir == nil {
		n.files, n.bytes = n.files+1, n.bytes+root.Entry.Size
		return
	}
	n.dir(ctx, root.Dir)
}

func (n *tally) dir(ctx context.Context, d *tree.Dir) {
	names, err := d.Names()
	if err != nil {
		return
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return
		}
		if name.IsDir {
			if sub, err := d.OpenDir(name.Name); err == nil {
				n.dir(ctx, sub)
				sub.Close()
			}
			continue
		}
		if e, err := d.Stat(name.Name); err == nil && e.Type == tree.File {
			n.files, n.bytes = n.files+1, n.bytes+e.Size
		}
	}
}

func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
