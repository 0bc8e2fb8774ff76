package dm

import (
	"context"
	"errors"
	"time"
)

// ahead is how long applications may be at rest for what writeAhead writes.
const ahead = time.Second

// writeAhead writes what is dirty before anybody waits for that, twice because the
// first time may take long. What a disk that has too much to do has not written when
// the time is over, the freeze writes.
func (s *set) writeAhead(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, ahead)
	defer cancel()
	err := s.write(limited)
	if err == nil {
		err = s.write(limited)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// write writes what is dirty. It waits no longer than the context lets it, for the
// kernel waits as long as a disk does.
func (s *set) write(ctx context.Context) error {
	done, hold := make(chan error, 1), s.hold
	go func() { done <- hold.Sync() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
