package repository

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"

	"stillpoint/internal/tree"
)

// A Writer stores one backup: its trees, then its record. It must be closed.
type Writer struct {
	r     *Repository
	kopia repo.DirectRepositoryWriter
	ctx   context.Context // kopia's session context
	links sync.Map        // first occurrences of hard-linked files: linkKey -> *linked
	zeros zeros
	p     *Progress

	recording bool     // a backup may be recorded in part
	passed    []Backup // checkpoints that were there when this writer began
}

// Progress counts what a Writer does. It may be read at any time.
type Progress struct {
	StoredBytes atomic.Int64 // written to the repository: new, compressed, encrypted

	volumes sync.Map // identity of a volume -> *Counters
}

// Forget begins to count anew, but for what the repository has grown by.
func (p *Progress) Forget() { p.volumes.Clear() }

// Spared is how much a run did not do again that an interrupted one had done.
func (p *Progress) Spared() (files, bytes int64) {
	p.volumes.Range(func(_, c any) bool {
		files, bytes = files+c.(*Counters).spared.Load(), bytes+c.(*Counters).sparedBytes.Load()
		return true
	})
	return files, bytes
}

// Counters count what was stored of one volume.
type Counters struct {
	Files     atomic.Int64 // regular files done, each name of a hard-linked one
	Dirs      atomic.Int64
	Others    atomic.Int64 // symlinks, device nodes …
	Bytes     atomic.Int64 // content done: read or known to be unchanged
	ReadBytes atomic.Int64 // content read
	Reused    atomic.Int64 // files that were not read because they are unchanged

	spared, sparedBytes atomic.Int64 // those of them that only an interrupted run has
}

// Counts are the values of Counters at one time.
type Counts struct{ Files, Dirs, Others, Bytes, ReadBytes, Reused int64 }

// Volume returns the counters of one volume.
func (p *Progress) Volume(id string) *Counters {
	if c, ok := p.volumes.Load(id); ok {
		return c.(*Counters)
	}
	c, _ := p.volumes.LoadOrStore(id, &Counters{})
	return c.(*Counters)
}

// Values reads the counters.
func (c *Counters) Values() Counts {
	return Counts{c.Files.Load(), c.Dirs.Load(), c.Others.Load(), c.Bytes.Load(), c.ReadBytes.Load(), c.Reused.Load()}
}

// Total is the sum over all volumes.
func (p *Progress) Total() Counts {
	var t Counts
	p.volumes.Range(func(_, c any) bool {
		t = t.Plus(c.(*Counters).Values())
		return true
	})
	return t
}

// Plus adds two counts.
func (a Counts) Plus(b Counts) Counts {
	return Counts{a.Files + b.Files, a.Dirs + b.Dirs, a.Others + b.Others, a.Bytes + b.Bytes, a.ReadBytes + b.ReadBytes, a.Reused + b.Reused}
}

// Begin starts storing. p may be nil.
func (r *Repository) Begin(ctx context.Context, p *Progress) (*Writer, error) {
	if r.unwritable != nil {
		return nil, r.unwritable
	}
	if p == nil {
		p = &Progress{}
	}
	passed, err := r.checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	kctx, w, err := r.kopia.NewDirectWriter(ctx, repo.WriteSessionOptions{
		Purpose:  "backup",
		OnUpload: func(n int64) { p.StoredBytes.Add(n) },
	})
	if err != nil {
		return nil, understand(r.path, err)
	}
	r.writers.Add(1)
	return &Writer{r: r, kopia: w, ctx: kctx, p: p, passed: passed}, nil
}

// Close ends the session. What was not recorded is found again by content, or
// if there was no room for the index that leads to it, it is removed.
func (w *Writer) Close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if !w.recording {
		// Not the manifests: what failed to be recorded must not exist.
		_ = w.kopia.ContentManager().Flush(ctx)
	}
	err := w.kopia.Close(ctx)
	if w.r.writers.Add(-1) == 0 { // else they may be another one's
		err = both(err, w.r.local.files.fresh.drop())
	}
	return understand(w.r.path, err)
}

// Flush brings everything so far to disk, indexed.
func (w *Writer) Flush(ctx context.Context) error { return w.flush(ctx) }

func (w *Writer) flush(ctx context.Context) error {
	return understand(w.r.path, w.kopia.Flush(ctx))
}

// A Tree is a stored path.
type Tree struct {
	Path       string // live path
	Root       Record
	Instant    time.Time // when it was as it is: the earliest, where it has several
	Incomplete bool      // a checkpoint of a run that did not end
}

// StoreOptions say how a source is stored.
type StoreOptions struct {
	// Instant is the moment of the snapshot, or the start of a live
	// reading. A file that changed less than a granule before it is read
	// again next time.
	Instant time.Time

	// Previous are earlier trees of the same path, best first.
	Previous []Tree

	// Live tells of which volumes the files may change while they are read. Nil
	// is none.
	Live func(volume string) bool

	// Opened, unless nil, is asked about each file that was opened, before it is
	// read, with the volume that it lies in; from several goroutines. Its error
	// leaves the file out. What it returns is called after the reading: an error
	// with the code file-changed has the file read again, and any other is an
	// exception of a file that is kept.
	Opened func(ctx context.Context, volume string, c *tree.Content) (after func() error, err error)

	// Added is what belongs into the tree besides, of which none is at or
	// below another one.
	Added []Added

	// Exception is told of everything that could not be stored as it was,
	// from several goroutines.
	Exception func(path string, err error)

	// Checkpoint is called every Interval with what is stored so far, and
	// once more when the storing is cancelled.
	Checkpoint func(ctx context.Context, t Tree) error
	Interval   time.Duration

	// Parallel is the number of files in work at once; 0 is a good number.
	Parallel int
}

// granule is the coarsest time stamp that we want to be safe from: ext3 and
// FAT have 1 and 2 s. A file whose ctime is that close to the instant may have
// changed again after it within the same time stamp (borg's rule for its files
// cache, and its reason: borg#3535).
const granule = 2 * time.Second

// unchanged tells whether now is the same content as before, which was stored
// from an instant. Of what was open for writing then nobody knows that it was whole.
func unchanged(before *Record, instant time.Time, now *tree.Entry) bool {
	return !before.Open &&
		before.Type == now.Type &&
		before.Inode == now.Inode &&
		before.Size == now.Size &&
		before.Modified.Equal(now.Modified) &&
		before.Changed.Equal(now.Changed) &&
		before.Changed.Add(granule).Before(instant)
}
