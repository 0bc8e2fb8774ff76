package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/aide"
)

// An instance is one database.
type instance struct {
	writer *Writer
	path   string
	about  writer.About
}

func describe(path string, h header) *instance {
	in := &instance{path: path, about: writer.About{ID: name + ":" + path, Writer: name, Version: h.version, Paths: []string{path}}}
	for _, end := range besides {
		if st, err := os.Lstat(path + end); err == nil && st.Mode().IsRegular() {
			in.about.Paths = append(in.about.Paths, path+end)
		}
	}
	return in
}

// About says what it is.
func (in *instance) About() writer.About { return in.about }

// Check looks whether it is still a database, and may be written to.
func (in *instance) Check(ctx context.Context) error {
	if ctx.Err() != nil {
		return problem.New(problem.WriterTimeout, in.about.ID, context.Cause(ctx))
	}
	_, _, ok, err := read(file.Here, in.path, true)
	err = named(in.path, err)
	if err == nil && !ok {
		err = problem.Newf(problem.WriterFailed, in.about.ID, "it is no database any more")
	}
	if err == nil {
		const writable = 2 // W_OK
		if err = syscall.Access(in.path, writable); err != nil {
			err = &fs.PathError{Op: "access", Path: in.path, Err: err}
		}
	}
	return in.understood(err)
}

// understood gives an error of a file its code.
func (in *instance) understood(err error) error {
	if err == nil || problem.CodeOf(err) != problem.Uncatalogued {
		return err
	}
	code := problem.WriterFailed
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code = problem.WriterGone
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		code = problem.WriterRights
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		code = problem.WriterResources
	}
	return problem.New(code, in.about.ID, err)
}

// Prepare opens the database in the helper process.
func (in *instance) Prepare(ctx context.Context, n writer.Need) (writer.Session, error) {
	if err := in.Check(ctx); err != nil {
		return nil, err
	}
	a, err := in.writer.hold(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{instance: in, aide: a, need: n}
	if err := a.Call(ctx, "Open", Opening{ID: in.about.ID, Path: in.path}, &s.number); err != nil {
		in.writer.leave(a)
		return nil, err
	}
	return s, nil
}

// A session is a database that the helper has open.
type session struct {
	*instance
	aide   *aide.Aide
	need   writer.Need
	number int64 // the helper's

	once sync.Once
	err  error // Thaw's
}

// Freeze locks the database.
func (s *session) Freeze(ctx context.Context) error {
	began := time.Now()
	r := Resting{Number: s.number, Wait: s.writer.options.wait(), Window: s.need.Window}
	if end, ok := ctx.Deadline(); ok {
		r.Wait = min(r.Wait, time.Until(end))
	}
	// The helper counts the window from when it is asked, which is later.
	r.Asked = began
	err := s.aide.Call(ctx, "Rest", r, nil)
	if err != nil && ctx.Err() != nil {
		// It may come to rest when nobody waits for that any more.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.aide.Call(ctx, "Release", s.number, nil)
	}
	return err
}

// Thaw unlocks the database and lets the helper close it.
func (s *session) Thaw(ctx context.Context) ([]writer.Note, error) {
	s.once.Do(func() {
		s.err = s.aide.Call(ctx, "Release", s.number, nil)
		s.writer.leave(s.aide)
	})
	return nil, s.err
}
