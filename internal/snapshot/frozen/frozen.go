// Package frozen suspends writes to a few file systems for a moment, together, by
// freezing them under a guard: providers that take what lies below a file system
// use it between Hold and Resume. Package cow, which has more to do at its instant,
// takes from it the freeze of one file system. It knows freezes, their dangers and
// their end, and nothing of snapshots.
package frozen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
)

// Window is the longest that writes are suspended. It is a matter of milliseconds
// as a rule; when it is over, the guard thaws, whatever the set has come to.
const Window = 2 * time.Second

// ErrLate says that a file system was thawed before it was to be.
var ErrLate = errors.New("it was thawed by somebody else, or by the guard, before the instant was fixed")

// A System is a file system that is to be frozen.
type System struct {
	Root  *os.File // a directory of it, which stays the caller's and open until Close
	Name  string   // for people
	Depth int      // by how many of the others it is carried, one on the other: these are frozen after it
}

// A Hold is a few file systems. Its methods are called one after the other, but
// for Resume, which may come from another goroutine.
type Hold struct {
	guard  *guard.Guard
	layers [][]*system
	given  Given

	mu      sync.Mutex
	since   time.Time // when it was suspended; zero where it is not
	guarded bool
}

type system struct {
	File
	frozen atomic.Bool
}

// New starts a guard for file systems.
func New(all []System) (_ *Hold, err error) {
	g, err := guard.Start()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	h := &Hold{guard: g}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b System) int { return b.Depth - a.Depth })
	depth := -1
	for _, s := range sorted {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(s.Root.Fd()), &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: s.Root.Name(), Err: err}
		}
		if err := g.Watch(s.Root); err != nil { // it thaws in the reverse order
			return nil, err
		}
		if s.Depth != depth {
			h.layers, depth = append(h.layers, nil), s.Depth
		}
		last := len(h.layers) - 1
		h.layers[last] = append(h.layers[last], &system{File: File{Root: s.Root, Name: s.Name, Device: st.Dev}})
	}
	return h, nil
}

// Suspend suspends all writes, when those have ended that are under way and
// everything is on disk. Whatever it returns, Resume follows.
func (h *Hold) Suspend(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	h.since, h.guarded = time.Now(), true
	h.mu.Unlock()
	if err := h.guard.Hold(Window); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(ctx, h.since.Add(Window*3/4))
	defer cancel()
	for _, layer := range h.layers { // a freeze writes what is dirty, and so waits for its disk
		if err := inParallel(layer, func(s *system) error { return s.freeze(ctx, &h.given) }); err != nil {
			return err
		}
	}
	return nil
}

// InTime is nil while everything is suspended, as far as the clock tells.
func (h *Hold) InTime() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		return errors.New("its writes are not suspended")
	}
	if time.Since(h.since) > Window {
		return problem.Newf(problem.FreezeBlocked, "", "the instant could not be fixed within %s, so everybody was let go on: the server has too much to do", Window)
	}
	for _, s := range slices.Concat(h.layers...) {
		if !s.frozen.Load() {
			return fmt.Errorf("%s: its writes are not suspended", s.Name)
		}
	}
	return nil
}

// Resume lets everybody go on, and says for how long they waited. With ErrLate
// somebody went on before.
func (h *Hold) Resume() (held time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.guarded {
		return 0, nil
	}
	var errs []error
	for _, layer := range slices.Backward(h.layers) {
		errs = append(errs, inParallel(layer, (*system).thaw))
	}
	held = time.Since(h.since)
	h.guarded, h.since = false, time.Time{}
	late, err := h.guard.Done()
	if late {
		errs = append(errs, ErrLate)
	}
	return held, errors.Join(append(errs, err)...)
}

func (s *system) freeze(ctx context.Context, given *Given) error {
	err := s.Freeze(ctx, given)
	if err == nil {
		s.frozen.Store(true)
	}
	return err
}

// thaw also says whether it was frozen until now.
func (s *system) thaw() error {
	if !s.frozen.CompareAndSwap(true, false) {
		return nil
	}
	late, err := s.Thaw()
	if late {
		return fmt.Errorf("%s: %w", s.Name, ErrLate)
	}
	return err
}

// Close ends the guard. It may be called twice.
func (h *Hold) Close() error {
	_, err := h.Resume()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guard == nil {
		return err
	}
	g := h.guard
	h.guard = nil
	return errors.Join(err, h.given.End(g, g.Close))
}

// inParallel does the same for several, none of which waits for another one.
func inParallel(all []*system, do func(*system) error) error {
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, s := range all {
		wait.Go(func() { errs[i] = do(s) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
