package coordinator

import (
	"context"
	"errors"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// A session is one instance's, with what has become of it.
type session struct {
	writer.Session
	*taking
	rest  *Rest     // under mu, as are the times
	since time.Time // of the begin of Freeze
	at    time.Time // of its end
}

// step is one of this application.
func (s *session) step(what string) Step { return Step{What: what, Instance: s.rest.ID} }

// frozen notes the end of Freeze.
func (s *session) frozen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Now()
}

// resting notes for how long it was at rest, before it is thawed.
func (s *session) resting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.IsZero() {
		rest := s.step("rest")
		rest.Began, rest.Took = s.at, time.Since(s.at)
		s.steps.add(rest)
	}
}

// fail notes the first failure of an instance, and returns it with its name.
func (s *session) fail(step writer.Step, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := failure(s.rest.ID, step, err)
	if e != nil && s.rest.Err == nil {
		s.rest.State, s.rest.Err = writer.Failed, e
	}
	return e
}

func (s *session) is(state writer.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest.Err == nil {
		s.rest.State = state
	}
}

// failure gives an error of a writer a code, unless it has one.
func failure(id string, step writer.Step, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case problem.CodeOf(err) != problem.Uncatalogued, errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded):
		err = problem.New(problem.WriterTimeout, "", err)
	default:
		err = problem.New(problem.WriterFailed, "", err)
	}
	return &writer.Error{ID: id, Step: step, Err: err}
}

// prepareWriters prepares all at once.
func (t *taking) prepareWriters(ctx context.Context) error {
	prepared := make([]writer.Session, len(t.Instances))
	errs := make([]error, len(t.Instances))
	var wait sync.WaitGroup
	for i, in := range t.Instances {
		wait.Go(func() {
			var err error
			end := t.steps.begin(Step{What: "prepare", Instance: t.rests[i].ID})
			prepared[i], err = t.prepareWriter(ctx, in)
			end(err)
			if err != nil {
				errs[i] = failure(t.rests[i].ID, writer.AtPrepare, err)
				t.mu.Lock()
				t.rests[i].State, t.rests[i].Err = writer.Failed, errs[i]
				t.mu.Unlock()
			}
		})
	}
	wait.Wait()
	for i, s := range prepared {
		if s != nil {
			of := &session{Session: s, taking: t, rest: &t.rests[i]}
			of.is(writer.WaitingForFreeze)
			t.sessions = append(t.sessions, of)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, t.end())
	}
	return nil
}

// prepareWriter begins a session. One that comes when nobody waits for it any
// more is ended.
func (t *taking) prepareWriter(ctx context.Context, in Resting) (writer.Session, error) {
	need := writer.Need{OneInstant: in.OneInstant && t.instants() == 1, Window: t.Limits.Window}
	var s writer.Session
	returned := make(chan struct{})
	err := within(ctx, t.Limits.Prepare, func(ctx context.Context) (err error) {
		defer close(returned)
		s, err = in.Prepare(ctx, need)
		return err
	})
	if err == nil {
		return s, nil
	}
	go func() {
		<-returned
		if s != nil {
			_ = within(t.undo, t.Limits.Undo, func(ctx context.Context) error {
				_, err := s.Thaw(ctx)
				return err
			})
		}
	}()
	return nil, err
}

// freeze brings all applications to rest, at once.
func (in *instant) freeze(ctx context.Context) error {
	errs := make([]error, len(in.sessions))
	var wait sync.WaitGroup
	for i, s := range in.sessions {
		wait.Go(func() {
			s.mu.Lock()
			s.since = time.Now()
			s.mu.Unlock()
			end := in.steps.begin(s.step("freeze"))
			errs[i] = s.fail(writer.AtFreeze, because(ctx, s.Freeze(ctx)))
			end(errs[i])
			if errs[i] == nil {
				s.frozen()
				s.is(writer.Frozen)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// blame notes who has not come to rest when the window closed.
func (t *taking) blame(cause error) {
	if cause == nil {
		return
	}
	for _, s := range t.sessions {
		t.mu.Lock()
		freezing := !s.since.IsZero() && s.rest.State == writer.WaitingForFreeze
		t.mu.Unlock()
		if freezing {
			_ = s.fail(writer.AtFreeze, cause)
		}
	}
}

// end ends all sessions before anybody rests.
func (t *taking) end() error {
	_, err := t.thaw()
	return err
}

// thaw lets all applications go on, at once, so that none has to wait for one
// that does not answer.
func (t *taking) thaw() ([]writer.Note, error) {
	notes := make([][]writer.Note, len(t.sessions))
	errs := make([]error, len(t.sessions))
	var wait sync.WaitGroup
	for i, s := range t.sessions {
		wait.Go(func() {
			s.is(writer.WaitingForThaw)
			s.resting()
			end := t.steps.begin(s.step("thaw"))
			brought := make(chan []writer.Note, 1)
			err := within(t.undo, t.Limits.Undo, func(ctx context.Context) error {
				n, err := s.Thaw(ctx)
				brought <- n
				return err
			})
			errs[i] = s.fail(writer.AtThaw, err)
			end(errs[i])
			if errs[i] == nil {
				notes[i] = <-brought
				s.is(writer.WaitingForStoring)
			}
			s.rested()
		})
	}
	wait.Wait()
	var all []writer.Note
	for _, n := range notes {
		all = append(all, n...)
	}
	return all, errors.Join(errs...)
}

func (s *session) rested() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		s.rest.Rested = time.Since(s.since)
	}
}
