package shield

import (
	"context"
	"errors"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/index"
)

// leaseTime is how long is waited for somebody who has a lease on a file to give
// it back, which it is asked for when the file is opened.
const leaseTime = 500 * time.Millisecond

var errLeased = errors.New("somebody holds a lease on it, and did not give it back in time")

// open opens a live file. It must be given back.
func (s *Shield) open(in *index.Inode) (*live, error) {
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		l, err := s.live.open(in)
		if !errors.Is(err, syscall.EAGAIN) {
			return l, err
		}
		if time.Since(began) > leaseTime {
			return nil, errLeased
		}
	}
}

// SaveThrough saves all of a file by a descriptor that shares its position with
// somebody else's, so that holes cannot be looked for: they count as data.
func (s *Shield) SaveThrough(ctx context.Context, number uint64, from int) {
	f := s.file(number)
	if f == nil || f.whole.Load() {
		return
	}
	s.announce(number)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	err := s.verify(f, from)
	if err == nil {
		if !f.passed {
			f.data, f.passed = []stretch{{0, f.in.Size}}, true
		}
		err = f.save(ctx, s.cache, from, 0, -1)
	}
	s.failed(f, err)
}

// Refuse gives up one file that cannot be kept.
func (s *Shield) Refuse(number uint64, code problem.Code, reason string) {
	f := s.file(number)
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !f.whole.Load() {
		s.giveUp(f, code, reason)
	}
}
