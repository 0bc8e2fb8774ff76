package mariadb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/problem"
)

// brief is how long a server may take to end a statement.
const brief = time.Second

// errLong is why a lock is waited for no longer.
var errLong = errors.New("the lock did not come in time")

// locks runs statements that wait for locks, for so long all together.
func (s *session) locks(ctx context.Context, wait time.Duration, statements []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errLong)
	defer cancel()
	for _, statement := range statements {
		if err := s.lock(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// lock runs a statement, and ends it when the context is over: by the second
// connection, since a server does not look whether somebody who waits for a
// lock is still there. Where it does not answer that one, either, the
// connection is given up.
func (s *session) lock(ctx context.Context, statement string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	alone, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	done := make(chan error, 1)
	go func() {
		_, err := s.rest.ExecContext(alone, statement)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(alone, brief)
	defer cancel()
	who, err := s.longest(soon, 1)
	if err == nil {
		_, err = s.aid.ExecContext(soon, fmt.Sprintf("KILL QUERY %d", s.rest.id))
	}
	if err == nil {
		select {
		case <-done:
			return s.busy(ctx, who)
		case <-soon.Done():
		}
	}
	cut()
	<-done
	return problem.Newf(problem.WriterTimeout, "", "the server does not answer: %w", context.Cause(ctx))
}

// busy is why a lock did not come from a server that answers.
func (s *session) busy(ctx context.Context, who string) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errOvertaken) || errors.Is(cause, context.Canceled) {
		return cause
	}
	if who == "" {
		who = "nobody is seen who is at work for long: an idle connection may hold it"
	}
	return problem.Newf(problem.WriterBusy, "", "%w; %s", cause, who)
}

// longest says which other client has been at work for longest, and for at
// least so many seconds; "" for none. Without the right PROCESS it sees only
// those of our own user.
func (s *session) longest(ctx context.Context, atLeast int) (string, error) {
	rows, err := s.aid.QueryContext(ctx, fmt.Sprintf(`SELECT ID, USER, TIME FROM information_schema.PROCESSLIST
		WHERE COMMAND IN ('Query', 'Execute') AND ID NOT IN (CONNECTION_ID(), %d) AND TIME >= %d ORDER BY TIME DESC LIMIT 1`, s.rest.id, atLeast))
	if err != nil {
		return "", err
	}
	defer rows.Close()
	who := ""
	for rows.Next() {
		var id, seconds int64
		var user string
		if err := rows.Scan(&id, &user, &seconds); err != nil {
			return "", err
		}
		who = fmt.Sprintf("connection %d of user %s has been at work for %d s", id, user, seconds)
	}
	return who, rows.Err()
}

// free is nil when no query has been running for long.
func (s *session) free(ctx context.Context) error {
	who, err := s.longest(ctx, 2)
	if err != nil || who == "" {
		return err
	}
	return problem.Newf(problem.WriterBusy, "", "%s", who)
}

// letGo ends everything, if it can at once: what the server does not hear it
// sees when the connection closes.
func (s *session) letGo() {
	ctx, cancel := context.WithTimeout(context.Background(), brief)
	defer cancel()
	var err error
	for _, statement := range s.way.thaw {
		if _, e := s.rest.ExecContext(ctx, statement); e != nil {
			err = e
		}
	}
	if err != nil {
		_, _ = s.aid.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", s.rest.id)) // it may be gone
	}
	s.close()
}

func (s *session) close() {
	s.rest.close()
	s.aid.close()
}
