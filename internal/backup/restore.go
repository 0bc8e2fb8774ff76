package backup

import (
	"context"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

// RestoreOptions say what is restored, and to where.
type RestoreOptions struct {
	Choose    func(ctx context.Context, r *repository.Repository) (repository.Backup, []repository.Selected, error)
	To        string // folder; the live paths appear below it
	Overwrite tree.Overwrite
	Progress  *RestoreProgress
	Expect    func(files, bytes int64) // told how much there is; may be nil
}

// RestoreProgress counts what a restore does. It may be read at any time.
type RestoreProgress struct {
	Files  atomic.Int64 // regular files done
	Dirs   atomic.Int64
	Others atomic.Int64
	Bytes  atomic.Int64 // content of the files done
	Wrote  atomic.Int64 // bytes written
	Kept   atomic.Int64 // files that were there already and the same
}

// Restore brings back what Choose returns. What could not be brought back as it
// was is an exception; the job fails where going on makes no sense.
func (e *Engine) Restore(ctx context.Context, open Open, o RestoreOptions) (*job.Report, error) {
	return e.run(ctx, job.Restore, func(ctx context.Context, r *run) error {
		repo, err := open(ctx)
		if err != nil {
			return err
		}
		defer repo.Close(context.WithoutCancel(ctx))
		b, sel, err := o.Choose(ctx, repo)
		if err != nil {
			return err
		}
		r.report.Backup = b.ID
		r.report.Level = job.Level(b.Level)
		if o.Expect != nil {
			o.Expect(expected(sel))
		}
		err = r.restore(ctx, repo, sel, o)
		p := o.Progress
		r.report.Total = job.Counts{
			Files: p.Files.Load(), Directories: p.Dirs.Load(), Others: p.Others.Load(),
			Bytes: p.Bytes.Load(), BytesWritten: p.Wrote.Load(), FilesReused: p.Kept.Load(),
		}
		if err == nil {
			err = r.logged()
		}
		return err
	})
}

func expected(sel []repository.Selected) (files, bytes int64) {
	for _, s := range sel {
		if s.Record.Summary != nil {
			files, bytes = files+s.Record.Summary.TotalFileCount, bytes+s.Record.Summary.TotalFileSize
		} else {
			files, bytes = files+1, bytes+s.Record.Size
		}
	}
	return files, bytes
}

// A restoring is one restore under way.
type restoring struct {
	*run
	o     RestoreOptions
	repo  *repository.Repository
	slot  chan struct{} // held by each goroutine that works; who gets none for another works by itself
	large chan struct{} // bounds those at work on large files, for the memory it takes
	links sync.Map      // linkKey -> *firstName

	mu   sync.Mutex
	over error // why it makes no sense to go on
	stop context.CancelFunc
}

func (r *run) restore(ctx context.Context, repo *repository.Repository, sel []repository.Selected, o RestoreOptions) (err error) {
	if err := outside(repo, o.To); err != nil {
		return err
	}
	target, err := tree.OpenTarget(o.To)
	if err != nil {
		return err
	}
	if !target.Locked() {
		r.event(job.Event{Severity: job.Warning, Step: job.StepRestore, Path: o.To, Text: "this file system knows no locks: nothing keeps a second restore away"})
	}
	if o.Overwrite == tree.Never {
		target.Keep()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &restoring{run: r, o: o, repo: repo, slot: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), large: make(chan struct{}, runtime.GOMAXPROCS(0)), stop: cancel}
	s.slot <- struct{}{}
	for i := range sel {
		if err = s.selected(ctx, target.Root(), &sel[i]); err != nil {
			break
		}
	}
	// Only the close makes it safe from a loss of power.
	if cerr := target.Close(); err == nil {
		err = cerr
	}
	return err
}

// outside refuses a target in the repository.
func outside(repo *repository.Repository, target string) error {
	if to, err := filepath.EvalSymlinks(target); err == nil {
		if in, err := filepath.EvalSymlinks(repo.Path()); err == nil && within(in, to) {
			return problem.Newf(problem.TargetUnsafe, target, "lies in the repository")
		}
	}
	return nil
}

// selected restores one selected place, with the directories that lead to it.
func (s *restoring) selected(ctx context.Context, root *tree.Maker, sel *repository.Selected) error {
	if sel.Path == "/" {
		// The root of the backup is the target itself.
		s.dirContent(ctx, root, root.Path(), &sel.Record, sel.Tree.Root.Volume, false)
		return s.ended(ctx)
	}
	at, vol := root, sel.Tree.Root.Volume
	for _, path := range leading(sel.Path) {
		rec, err := leadingRecord(ctx, s.repo, sel.Tree, path, s.e.now())
		if err != nil {
			return err
		}
		if rec.Volume != "" {
			vol = rec.Volume
		}
		m, outcome, err := at.Dir(rec.Entry, tree.Never)
		if err != nil {
			return err
		}
		if outcome == tree.Same && !unfinished(m.Path()) {
			defer m.Close() // whatever it is like is nobody's matter
		} else {
			defer func() {
				unset, err := m.Finish(rec.Entry)
				s.unset(m.Path(), unset, err)
			}()
		}
		at = m
	}
	rec := sel.Record
	rec.Name = filepath.Base(sel.Path)
	s.entry(ctx, at, at.Path(), &rec, vol)
	return s.ended(ctx)
}

// unfinished tells whether a directory has the mark of a restore that was
// killed before it could finish it.
func unfinished(path string) bool {
	n, _ := tree.Open(tree.Source{Path: path, Root: path})
	if n == nil {
		return false
	}
	defer n.Close()
	return marked(n)
}

func marked(n *tree.Node) bool {
	return slices.ContainsFunc(n.Entry.XAttrs, func(x tree.XAttr) bool { return strings.HasSuffix(x.Name, ".stillpoint.restoring") })
}

// leading are the directories that lead to a live path from the root.
func leading(path string) (all []string) {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		all = append(all, dir)
	}
	slices.Reverse(all)
	return all
}

// leadingRecord is that of the backup, or a plain one where the way begins
// above the backup's path.
func leadingRecord(ctx context.Context, repo *repository.Repository, t *repository.Tree, path string, now time.Time) (repository.Record, error) {
	if t.Holds(path) {
		rec, err := repo.Lookup(ctx, t, path)
		rec.Name = filepath.Base(path)
		return rec, err
	}
	return repository.Record{Entry: tree.Entry{Name: filepath.Base(path), Type: tree.Directory, Mode: 0o755, Modified: now}}, nil
}

// ended is why the restore ended before it was done.
func (s *restoring) ended(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return s.over
	}
	return ctx.Err()
}

// fail notes an error: as an exception, or as the end of the restore.
func (s *restoring) fail(path string, err error) {
	switch problem.CodeOf(err) {
	case problem.TargetFull, problem.TargetLost, problem.RepositoryLost, problem.Cancelled:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.over == nil {
			s.over = err
			s.stop()
		}
	default:
		s.exception(job.StepRestore, path, err)
	}
}

func (s *restoring) unset(path string, unset []tree.Unset, err error) {
	for _, u := range unset {
		s.exception(job.StepRestore, filepath.Join(filepath.Dir(path), u.Name), u.Err)
	}
	if err != nil {
		s.fail(path, err)
	}
}

// entry restores one name below a directory, whose path is dir: to ask m for
// it each time would be slow in very deep trees.
func (s *restoring) entry(ctx context.Context, m *tree.Maker, dir string, rec *repository.Record, vol string) {
	if ctx.Err() != nil {
		return
	}
	if rec.Volume != "" {
		vol = rec.Volume
	}
	path := filepath.Join(dir, rec.Name)
	if rec.Type == tree.Directory {
		s.dir(ctx, m, path, rec, vol)
		return
	}
	s.leaf(ctx, m, path, rec, vol)
}

// other restores what has no content; it tells whether it is there now.
func (s *restoring) other(ctx context.Context, m *tree.Maker, path string, rec *repository.Record) bool {
	var outcome tree.Outcome
	var unset []tree.Unset
	var err error
	if err := s.repo.Readlink(ctx, rec); err != nil {
		s.fail(path, err)
		return false
	}
	if rec.Type == tree.Symlink {
		outcome, unset, err = m.Symlink(rec.Entry, s.o.Overwrite)
	} else {
		outcome, unset, err = m.Special(rec.Entry, s.o.Overwrite)
	}
	s.unset(path, unset, err)
	s.kept(path, outcome)
	return err == nil && outcome != tree.KeptNewer
}

// kept notes what was left because it is newer than the backup.
func (s *restoring) kept(path string, outcome tree.Outcome) {
	switch outcome {
	case tree.KeptNewer:
		s.leftOut(job.StepRestore, path, "", "what is there is not older")
	case tree.Same:
		s.o.Progress.Kept.Add(1)
	}
}

func (s *restoring) dir(ctx context.Context, m *tree.Maker, path string, rec *repository.Record, vol string) {
	sub, _, err := m.Dir(rec.Entry, s.o.Overwrite)
	if err != nil {
		s.fail(path, err)
		return
	}
	s.dirContent(ctx, sub, path, rec, vol, true)
}

// dirContent restores what is in a directory, and then its attributes.
func (s *restoring) dirContent(ctx context.Context, m *tree.Maker, path string, rec *repository.Record, vol string, closing bool) {
	if err := s.names(ctx, m, path, rec, vol); err != nil {
		s.fail(path, err)
	}
	if ctx.Err() != nil {
		if closing {
			m.Close()
		}
		return
	}
	unset, err := m.Finish(rec.Entry)
	s.unset(path, unset, err)
	s.o.Progress.Dirs.Add(1)
}
