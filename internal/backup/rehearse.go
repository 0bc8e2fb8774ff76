package backup

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

// Rehearse tells say what a restore would do with every name, and changes
// nothing: neither the target nor the job logs. It returns the exceptions that
// the restore would have, counted.
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
	r := &rehearsal{ctx: ctx, repo: repo, o: o, say: say}
	for i := range sel {
		if err := r.entry(filepath.Join(o.To, sel[i].Path), &sel[i].Record, false); err != nil {
			return r.exceptions, err
		}
	}
	return r.exceptions, nil
}

type rehearsal struct {
	ctx        context.Context
	repo       *repository.Repository
	o          RestoreOptions
	say        func(path, what string, err error)
	exceptions int
}

// entry goes through one name and what is below it. Where the directory is
// fresh, nothing can be there yet.
func (r *rehearsal) entry(path string, rec *repository.Record, fresh bool) error {
	if err := r.ctx.Err(); err != nil {
		return problem.New(problem.Cancelled, "", err)
	}
	what, err := "make", r.repo.Readlink(r.ctx, rec)
	if err == nil && !fresh {
		what, err = wouldBe(path, rec, r.o.Overwrite)
	}
	r.tell(path, what, err)
	if err != nil || rec.Type != tree.Directory {
		return nil
	}
	l, err := r.repo.Listing(r.ctx, rec)
	if err != nil {
		r.tell(path, "", err)
		return nil
	}
	defer l.Close()
	for {
		child, err := l.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			r.tell(path, "", err)
			return nil
		}
		if err := r.entry(filepath.Join(path, child.Name), &child, what != ""); err != nil {
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

// wouldBe tells what would become of one name: nothing to say, one word, or
// the exception that a restore would make.
func wouldBe(path string, rec *repository.Record, o tree.Overwrite) (string, error) {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "make", nil
	case err != nil:
		return "", problem.New(problem.TargetLost, "", err)
	case rec.Type == tree.Directory && fi.IsDir():
		return "", nil
	case rec.Type == tree.File && fi.Mode().IsRegular() && fi.Size() == rec.Size && fi.ModTime().Equal(rec.Modified):
		return "", nil
	case rec.Type == tree.Symlink && fi.Mode()&fs.ModeSymlink != 0:
		if t, err := os.Readlink(path); err == nil && t == rec.Target {
			return "", nil
		}
	}
	switch dir := rec.Type == tree.Directory || fi.IsDir(); {
	case o == tree.Always, o == tree.Newer && !dir && rec.Modified.After(fi.ModTime()):
		return "replace", nil
	case o == tree.Newer && !dir:
		return "keep", nil
	case rec.Type == tree.Directory && fi.Mode()&fs.ModeSymlink != 0:
		return "", problem.Newf(problem.TargetUnsafe, "", "a symbolic link is where a directory belongs")
	}
	return "", problem.Newf(problem.TargetExists, "", "something else is there and would stay")
}
