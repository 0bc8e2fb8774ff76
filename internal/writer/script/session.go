package script

import (
	"context"
	"errors"
	"sync"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/aide"
)

// A session is a helper process that has not yet called all scripts with thaw.
type session struct {
	*instance
	need    writer.Need
	scripts Scripts
	aide    *aide.Aide

	mu    sync.Mutex
	begun bool // Freeze was called
	once  sync.Once
	err   error // Thaw's
}

// Freeze lets the helper call the scripts.
func (s *session) Freeze(ctx context.Context) error {
	r := Resting{Asked: time.Now(), Window: s.need.Window}
	if ctx.Err() == nil {
		s.mu.Lock()
		s.begun = true
		s.mu.Unlock()
	}
	err := s.aide.Call(ctx, "Rest", r, nil)
	if err != nil && ctx.Err() != nil {
		// The helper goes on without us, and ends what it began.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = s.aide.Call(ctx, "Thaw", true, nil)
	}
	return err
}

// Thaw lets the helper call the scripts once more. Those that take longer than
// the context says are called all the same.
func (s *session) Thaw(ctx context.Context) ([]writer.Note, error) {
	s.once.Do(func() {
		s.err = s.aide.Call(ctx, "Thaw", true, nil)
		s.aide.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.begun && errors.Is(s.err, aide.ErrGone) { // it was killed, and may have called none
			s.err = errors.Join(s.err, s.scripts.thaw(s.scripts.All, thaw))
		}
	})
	return nil, s.err
}
