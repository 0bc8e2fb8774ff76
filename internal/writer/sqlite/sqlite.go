package sqlite

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/aide"
)

// A Writer knows SQLite databases. All that are at rest at the same time are
// held by one helper process.
type Writer struct {
	options Options

	mu       sync.Mutex
	aide     *aide.Aide // while there are sessions
	sessions int
}

// New makes a writer.
func New(o Options) *Writer { return &Writer{options: o} }

// Name is "sqlite".
func (*Writer) Name() string { return name }

// Discover looks for databases below the selected paths, on the file system of
// each. It follows no links and opens nothing but regular files whose size
// could be a database's; a file with several names is found by the first of them.
func (w *Writer) Discover(ctx context.Context, s writer.Scope) ([]writer.Instance, error) {
	f := &finding{seen: map[inode]bool{}, found: map[inode]hit{}}
	var errs []error
	for i, path := range s.Paths {
		errs = append(errs, f.below(ctx, i, path))
	}
	var all []writer.Instance
	for _, d := range f.found {
		in := describe(d.path, d.header)
		in.writer = w
		all = append(all, in)
	}
	slices.SortFunc(all, func(a, b writer.Instance) int { return cmp.Compare(a.About().ID, b.About().ID) })
	return all, errors.Join(errs...)
}

// hold returns the helper process for one more session.
func (w *Writer) hold(ctx context.Context) (*aide.Aide, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aide != nil {
		select {
		case <-w.aide.Gone():
			w.aide.Close()
			w.aide = nil
		default:
		}
	}
	if w.aide == nil {
		a, err := aide.Start(ctx, program)
		if err != nil {
			return nil, err
		}
		w.aide, w.sessions = a, 0
	}
	w.sessions++
	return w.aide, nil
}

// leave ends what hold began. The last one ends the process.
func (w *Writer) leave(a *aide.Aide) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aide != a {
		return // it was replaced
	}
	if w.sessions--; w.sessions == 0 {
		a.Close()
		w.aide = nil
	}
}
