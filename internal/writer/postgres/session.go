package postgres

import (
	"context"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// A session is a server on its way through a capture.
type session struct {
	conn   conn
	server server
	state  state
	backup *backup // nil where all is of one instant

	mu     sync.Mutex
	ended  bool               // Thaw has come
	cancel context.CancelFunc // of the Freeze under way, or nil
	rests  bool               // Freeze has returned nil
	done   sync.WaitGroup     // for Freeze
}

// Prepare makes a checkpoint, alone or as the begin of a backup.
func (in *instance) Prepare(ctx context.Context, n writer.Need) (writer.Session, error) {
	c, err := in.of.connect(ctx, in.at)
	if err != nil {
		return nil, err
	}
	s := &session{conn: c, server: in.at}
	if err := s.prepare(ctx, n); err != nil {
		c.close()
		return nil, failure(ctx, err)
	}
	return s, nil
}

func (s *session) prepare(ctx context.Context, n writer.Need) (err error) {
	if s.state, err = s.conn.state(ctx); err != nil {
		return err
	}
	if n.OneInstant {
		if err := s.state.checkpointing(); err != nil {
			return err
		}
		return s.conn.do(ctx, "CHECKPOINT")
	}
	if err := s.state.backing(); err != nil {
		return err
	}
	if s.server.data == "" {
		return problem.Newf(problem.WriterRights, "", "the backup needs files of the data directory, and where that is cannot be seen")
	}
	s.backup, err = begin(ctx, s.conn, s.state, n.Window)
	return err
}

// Freeze looks whether it is the same server still. A Freeze that fails ends
// the backup.
func (s *session) Freeze(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return problem.Newf(problem.WriterTimeout, "", "it was let go on before it came to rest")
	}
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	s.done.Add(1)
	defer s.done.Done()
	s.mu.Unlock()

	err := s.same(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		err = problem.Newf(problem.WriterTimeout, "", "it was let go on while it came to rest")
	}
	if s.rests = err == nil; err != nil {
		s.conn.close()
	}
	return err
}

// Thaw ends the backup and brings what a restore needs. It overtakes a Freeze.
func (s *session) Thaw(ctx context.Context) ([]writer.Note, error) {
	s.mu.Lock()
	s.ended = true
	if s.cancel != nil {
		s.cancel()
	}
	s.mu.Unlock()
	s.done.Wait()
	defer s.conn.close()
	if !s.rests {
		return nil, nil
	}
	if err := s.same(ctx); err != nil || s.backup == nil {
		return nil, err
	}
	notes, err := s.backup.end(ctx, s.conn, s.server.data)
	return notes, failure(ctx, err)
}

// same is nil when the server answers and has not been started anew.
func (s *session) same(ctx context.Context) error {
	row, err := s.conn.row(ctx, "SELECT pg_postmaster_start_time()")
	if err != nil {
		return failure(ctx, err)
	}
	if row[0] != s.state.started {
		return problem.Newf(problem.WriterGone, "", "the server was started anew at %s", row[0])
	}
	return nil
}

// slack is for how long a session that keeps WAL may say nothing, beyond the
// window: others prepare, and the volumes become quiet.
const slack = 10 * time.Minute
