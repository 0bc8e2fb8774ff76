package coordinator

import (
	"sync"
	"time"
)

// A Step is one call of a capture, and how long it took.
type Step struct {
	What     string // prepare, quiet, ready, hold, commit, resume; freeze, rest, thaw
	Provider string // whose; empty where it is an application's, or everybody's
	Volumes  []string
	Instance string // id of the application
	Began    time.Time
	Took     time.Duration
	Failed   bool
}

// steps gathers them, in memory, from any goroutine.
type steps struct {
	mu     sync.Mutex
	all    []Step
	closed bool // what comes late is no more told
}

// begin notes that a step begins, and returns what is to be called at its end.
func (s *steps) begin(of Step) (end func(error)) {
	of.Began = time.Now()
	return func(err error) {
		of.Took, of.Failed = time.Since(of.Began), err != nil
		s.add(of)
	}
}

func (s *steps) add(of Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.all = append(s.all, of)
	}
}

// end returns all of them.
func (s *steps) end() []Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.all
}

// step is one of a provider.
func (p pending) step(what string) Step {
	return Step{What: what, Provider: p.name, Volumes: p.volumes}
}
