package mariadb

import (
	"context"
	"errors"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// A session is a server on its way through a capture.
type session struct {
	rest     conn // has the locks
	aid      conn // ends what the other waits for
	way      way
	lockWait time.Duration
	window   time.Duration

	mu     sync.Mutex
	ended  bool                    // Thaw has come
	cancel context.CancelCauseFunc // of the Freeze under way, or nil
	began  time.Time               // of Freeze
	rests  bool                    // Freeze has returned nil
	done   sync.WaitGroup          // for Freeze
}

// slack is for how long a session may say nothing before Freeze, beyond the
// window: others prepare, and the volumes become quiet.
const slack = 10 * time.Minute

// Prepare keeps others from beginning a backup, which would be in our way, and
// nobody else from anything.
func (in *instance) Prepare(ctx context.Context, n writer.Need) (writer.Session, error) {
	if !n.OneInstant && len(in.about.Paths) != 1 {
		return nil, problem.Newf(problem.WriterFailed, "", "its files are in %d places, of which the snapshots will not show one instant, and InnoDB does not recover from that", len(in.about.Paths))
	}
	rest, err := in.of.connect(ctx, in.at)
	if err != nil {
		return nil, err
	}
	aid, err := in.of.connect(ctx, in.at)
	if err != nil {
		rest.close()
		return nil, err
	}
	s := &session{rest: rest, aid: aid, lockWait: in.of.LockWait, window: n.Window}
	if err := s.prepare(ctx); err != nil {
		s.letGo()
		return nil, failure(ctx, err)
	}
	return s, nil
}

func (s *session) prepare(ctx context.Context) (err error) {
	if s.way, err = s.rest.way(ctx); err != nil {
		return err
	}
	for _, c := range []conn{s.rest, s.aid} {
		if err := c.set(ctx, "wait_timeout", s.window+slack); err != nil {
			return err
		}
	}
	// We end a statement ourselves; this is for when we are stopped.
	if err := s.rest.set(ctx, "lock_wait_timeout", s.lockWait+time.Second); err != nil {
		return err
	}
	return s.locks(ctx, s.lockWait, s.way.prepare)
}

// errOvertaken is why a Freeze ends when Thaw comes.
var errOvertaken = errors.New("it was let go on before it came to rest")

// Freeze brings the server to rest. One that fails ends the session.
func (s *session) Freeze(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return problem.New(problem.WriterTimeout, "", errOvertaken)
	}
	ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	s.began = time.Now()
	s.done.Add(1)
	defer s.done.Done()
	s.mu.Unlock()

	err := s.freeze(ctx)
	s.mu.Lock()
	s.rests = err == nil && !s.ended
	late := err == nil && s.ended
	s.mu.Unlock()
	if late {
		err = errOvertaken
	}
	if err == nil {
		return nil
	}
	s.letGo()
	if errors.Is(err, errOvertaken) || errors.Is(context.Cause(ctx), errOvertaken) {
		return problem.New(problem.WriterTimeout, "", errOvertaken)
	}
	return failure(ctx, err)
}

// freeze takes the locks. Before and after, the server is told when to end the
// connection if it hears nothing more.
func (s *session) freeze(ctx context.Context) error {
	if s.way.flushes {
		if err := s.free(ctx); err != nil {
			return err
		}
	}
	wait := min(s.lockWait, s.window/2)
	if err := s.rest.set(ctx, "wait_timeout", s.window-wait); err != nil {
		return err
	}
	if err := s.locks(ctx, wait, s.way.freeze); err != nil {
		return err
	}
	left := s.window - time.Since(s.began)
	if left <= 0 {
		return problem.Newf(problem.WriterTimeout, "", "it needed all of its window to come to rest")
	}
	return s.rest.set(ctx, "wait_timeout", left)
}

// Thaw lets the server go on. It overtakes a Freeze.
func (s *session) Thaw(ctx context.Context) ([]writer.Note, error) {
	s.mu.Lock()
	s.ended = true
	if s.cancel != nil {
		s.cancel(errOvertaken)
	}
	s.mu.Unlock()
	s.done.Wait()
	if !s.rests {
		s.letGo()
		return nil, nil
	}
	defer s.close()
	for _, statement := range s.way.thaw {
		if _, err := s.rest.ExecContext(ctx, statement); err != nil {
			return nil, s.lost(failure(ctx, err))
		}
	}
	return nil, nil
}

// lost is why a rest did not last: the server ends it a little before the
// window is over.
func (s *session) lost(err error) error {
	if problem.CodeOf(err) == problem.WriterGone && time.Since(s.began) > s.window-2*time.Second {
		return problem.Newf(problem.WindowClosed, "", "the server went on by itself when its %s were over: %s", s.window, err.Error())
	}
	return err
}
