package zfs

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// How long ZFS may take for one call, and for one answer of its programs. A call
// waits for a transaction group, which a busy pool may need seconds for.
const (
	callLimit   = time.Minute
	answerLimit = 30 * time.Second
)

// stuck knows what did not come back from ZFS in time. As long as there is something,
// nothing more is begun: it would hang, too, and keep more of what others wait for.
type stuck struct {
	mu    sync.Mutex
	calls map[string]int // those given up, and not back
}

// do makes a call, and does not wait for it longer than the limit, or than a moment
// after the context is over: one that is only slow has done what it does then.
func (s *stuck) do(ctx context.Context, limit time.Duration, what string, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.refuse(); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() { result <- call() }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-result:
		return err
	case <-time.After(min(limit, 5*time.Second)):
	}
	s.note(what, 1)
	go func() {
		<-result
		s.note(what, -1)
	}()
	return problem.Newf(problem.ZFSStuck, what, "does not come back from ZFS")
}

func (s *stuck) note(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	if s.calls[what] += n; s.calls[what] == 0 {
		delete(s.calls, what)
	}
}

// refuse says what is still out.
func (s *stuck) refuse() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(s.calls)) {
		return problem.Newf(problem.ZFSStuck, what, "has not come back from ZFS; nothing more is tried until it does")
	}
	return nil
}
