package script

import (
	"context"
	"path/filepath"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/aide"
)

// A Writer knows the scripts of one directory.
type Writer struct{ options Options }

// New makes a writer.
func New(o Options) *Writer { return &Writer{o.orDefault()} }

// Name is "script".
func (*Writer) Name() string { return name }

// Discover finds one instance, if there are any scripts.
func (w *Writer) Discover(context.Context, writer.Scope) ([]writer.Instance, error) {
	dir, err := filepath.EvalSymlinks(w.options.Dir)
	if err != nil {
		err = understood(w.options.Dir, err)
		if problem.CodeOf(err) == problem.WriterGone {
			err = nil
		}
		return nil, err
	}
	if all, err := list(dir); err == nil && len(all) == 0 {
		return nil, nil
	}
	in := &instance{options: w.options, about: writer.About{ID: name + ":" + dir, Writer: name, Everywhere: len(w.options.Paths) == 0}}
	in.options.Dir = dir
	for _, p := range w.options.Paths {
		r, err := filepath.EvalSymlinks(p)
		if err != nil {
			return []writer.Instance{in}, understood(p, err)
		}
		in.about.Paths = append(in.about.Paths, r)
	}
	return []writer.Instance{in}, nil
}

// An instance is a directory of scripts.
type instance struct {
	options Options
	about   writer.About
}

// About says what it is.
func (in *instance) About() writer.About { return in.about }

// Check looks whether the scripts may be run.
func (in *instance) Check(ctx context.Context) error {
	_, err := in.scripts(ctx)
	return err
}

func (in *instance) scripts(ctx context.Context) ([]string, error) {
	if ctx.Err() != nil {
		return nil, problem.New(problem.WriterTimeout, in.about.ID, context.Cause(ctx))
	}
	all, err := list(in.options.Dir)
	if err == nil && len(all) == 0 {
		err = problem.Newf(problem.WriterGone, in.options.Dir, "it has no scripts any more")
	}
	return all, err
}

// Prepare starts the helper process. No script is called.
func (in *instance) Prepare(ctx context.Context, n writer.Need) (writer.Session, error) {
	all, err := in.scripts(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{instance: in, need: n, scripts: Scripts{All: all, Limit: in.options.Limit, FreezeFail: in.options.FreezeFail}}
	if s.aide, err = aide.Start(ctx, program); err != nil {
		return nil, err
	}
	if err := s.aide.Call(ctx, "Load", s.scripts, nil); err != nil {
		s.aide.Close()
		return nil, err
	}
	return s, nil
}
