package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

// Rehearse tells say what a restore would do with every name, and changes
// nothing: neither the target nor the job logs. It returns the exceptions that
// the restore would have, counted, and the error that would end it.
func (e *Engine) Rehearse(ctx context.Context, open Open, o RestoreOptions, say func(path, what string, err error)) (exceptions int, err error) {
	repo, err := open(ctx)
	if err != nil {
		return 0, err
	}
	defer repo.Close(context.WithoutCancel(ctx))
	_, sel, err := o.Choose(ctx, repo)
	if err != nil {
		return 0, err
	}
	if err := outside(repo, o.To); err != nil {
		return 0, err
	}
	r := &rehearsal{ctx: ctx, repo: repo, o: o, say: say, links: map[linkKey]*rehearsed{}}
	target, err := r.target()
	if err != nil {
		return 0, err
	}
	defer target.close()
	for i := range sel {
		if err := r.selected(target, sel[:i], &sel[i], e.now); err != nil {
			return r.exceptions, err
		}
	}
	return r.exceptions, nil
}

// A rehearsal goes through a backup as a restore does, one name at a time.
type rehearsal struct {
	ctx        context.Context
	repo       *repository.Repository
	o          RestoreOptions
	say        func(path, what string, err error)
	exceptions int
	links      map[linkKey]*rehearsed
}

// A way is a directory of the target, held open: like the restore, the
// rehearsal follows no symbolic link below the target. A way without a spot is
// not there yet, and nothing can be in it.
type way struct {
	path string
	spot *tree.Spot
}

func (w *way) close() {
	if w.spot != nil {
		w.spot.Close() // it was only opened to be a place: there is nothing to lose
	}
}

// look finds what has a name in the directory; nil where nothing has.
func (w *way) look(name string) (fs.FileInfo, error) {
	if w.spot == nil {
		return nil, nil
	}
	fi, err := os.Lstat(w.spot.Root() + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, problem.New(problem.TargetLost, filepath.Join(w.path, name), errors.Unwrap(err))
	}
	return fi, nil
}

// enter goes into the directory name, which is there or would be made.
func (w *way) enter(name string, there bool) (*way, error) {
	next := &way{path: filepath.Join(w.path, name)}
	if !there {
		return next, nil
	}
	var err error
	next.spot, err = tree.Beneath(w.spot.Root(), name, next.path)
	return next, err
}

// target is where the restore begins. Its own path may lead over links.
func (r *rehearsal) target() (*way, error) {
	w := &way{path: r.o.To}
	fi, err := os.Stat(r.o.To)
	switch {
	case errors.Is(err, syscall.ENOTDIR), err == nil && !fi.IsDir():
		return nil, problem.Newf(problem.TargetExists, r.o.To, "is no directory")
	case errors.Is(err, fs.ErrNotExist):
		r.tell(r.o.To, "make", nil)
		return w, nil
	case err != nil:
		return nil, problem.New(problem.TargetLost, r.o.To, err)
	}
	w.spot, err = tree.Beneath(r.o.To, ".", r.o.To)
	return w, err
}

// selected goes to a selected place, and through it. What earlier ones are
// about was told with them.
func (r *rehearsal) selected(at *way, earlier []repository.Selected, sel *repository.Selected, now func() time.Time) error {
	vol := sel.Tree.Root.Volume
	if sel.Path == "/" {
		if err := r.compare(at, &sel.Record, false); err != nil {
			r.tell(at.path, "", err)
		}
		return r.content(at, &sel.Record, vol)
	}
	for _, path := range leading(sel.Path) {
		rec, err := leadingRecord(r.ctx, r.repo, sel.Tree, path, now())
		if err != nil {
			return err
		}
		if rec.Volume != "" {
			vol = rec.Volume
		}
		fi, err := at.look(rec.Name)
		if err != nil {
			return err
		}
		told := slices.ContainsFunc(earlier, func(s repository.Selected) bool { return within(s.Path, path) || within(path, s.Path) })
		if fi != nil {
			_, err = dirWouldBe(fi, tree.Never)
		} else if !told {
			r.tell(filepath.Join(at.path, rec.Name), "make", nil)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(at.path, rec.Name), err)
		}
		next, err := at.enter(rec.Name, fi != nil)
		if err != nil {
			return err
		}
		defer next.close()
		at = next
	}
	rec := sel.Record
	rec.Name = filepath.Base(sel.Path)
	return r.entry(at, &rec, vol)
}

// entry goes through one name and what is below it.
func (r *rehearsal) entry(at *way, rec *repository.Record, vol string) error {
	if err := r.ctx.Err(); err != nil {
		return problem.New(problem.Cancelled, "", err)
	}
	if rec.Volume != "" {
		vol = rec.Volume
	}
	path := filepath.Join(at.path, rec.Name)
	err := r.repo.Readlink(r.ctx, rec)
	var fi fs.FileInfo
	if err == nil {
		fi, err = at.look(rec.Name)
	}
	if err != nil {
		r.tell(path, "", err)
		return nil
	}
	if rec.Type != tree.Directory {
		what, err := r.leaf(&rehearsed{at: at, rec: rec, now: fi, o: r.o.Overwrite}, vol)
		r.tell(path, what, err)
		return nil
	}
	what := "make"
	if fi != nil {
		what, err = dirWouldBe(fi, r.o.Overwrite)
	}
	if err != nil {
		r.tell(path, "", err)
		return nil
	}
	next, err := at.enter(rec.Name, what == "")
	if err != nil {
		r.tell(path, "", err)
		return nil
	}
	defer next.close()
	if what == "" {
		err = r.compare(next, rec, true)
	}
	r.tell(path, what, err)
	return r.content(next, rec, vol)
}

// content goes through what is in a directory.
func (r *rehearsal) content(at *way, rec *repository.Record, vol string) error {
	l, err := r.repo.Listing(r.ctx, rec)
	if err != nil {
		r.tell(at.path, "", err)
		return nil
	}
	defer l.Close()
	for {
		child, err := l.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			r.tell(at.path, "", err)
			return nil
		}
		if err := r.entry(at, &child, vol); err != nil {
			return err
		}
	}
}

func (r *rehearsal) tell(path, what string, err error) {
	if err != nil {
		r.exceptions++
	}
	if what != "" || err != nil {
		r.say(path, what, err)
	}
}
