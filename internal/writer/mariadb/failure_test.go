package mariadb

import (
	"context"
	"fmt"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

func TestPasswordAndRights(t *testing.T) {
	s := start(t)
	s.Must("CREATE USER clerk@localhost IDENTIFIED BY 'right'")
	named := []string{s.Socket()}
	for _, o := range []Options{
		{User: "clerk", Password: "wrong", Sockets: named},
		{User: "clerk", Password: "right"}, // which a server of nobody is not told
		{User: "clerk"},
		{User: "noone"},
	} {
		in := s.instance(o)
		want(t, in.Check(s.soon()), problem.WriterPassword, writer.NotRetryable)
		_, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		want(t, err, problem.WriterPassword, writer.NotRetryable)
	}
	in := s.instance(Options{User: "clerk", Password: "right", Sockets: named})
	want(t, in.Check(s.soon()), problem.WriterRights, writer.NotRetryable)
	_, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
	want(t, err, problem.WriterRights, writer.NotRetryable)
	s.Must("GRANT RELOAD, PROCESS, CONNECTION ADMIN ON *.* TO clerk@localhost") // as the page says
	must(t, in.Check(s.soon()))
	p, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
	must(t, err)
	must(t, p.Freeze(s.soon()))
	_, err = p.Thaw(s.soon())
	must(t, err)
	s.Must("DROP USER root@localhost") // the user whom it runs as is there still
	must(t, s.instance(Options{}).Check(s.soon()))
	s.free()
}

func TestNoConnectionLeft(t *testing.T) {
	s := start(t)
	in := s.instance(Options{})
	for {
		k, err := s.DB.Conn(s.soon())
		if err != nil {
			break
		}
		defer k.Close()
	}
	want(t, in.Check(s.soon()), problem.WriterResources, writer.OutOfResources)
	if got := s.instance(Options{}).About(); len(got.Paths) != 1 {
		t.Errorf("it is found as %+v", got)
	}
}

// A server that goes away, or ends a connection, is noticed at each step.
func TestGone(t *testing.T) {
	s := start(t)
	in := s.instance(Options{})
	prepared := func() *session {
		t.Helper()
		p, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		must(t, err)
		return p.(*session)
	}
	end := func(c conn) {
		s.Must(fmt.Sprintf("KILL %d", c.id))
	}
	p := prepared()
	end(p.rest)
	want(t, p.Freeze(s.soon()), problem.WriterGone, writer.Retryable)
	_, err := p.Thaw(s.soon())
	must(t, err)
	p = prepared()
	must(t, p.Freeze(s.soon()))
	end(p.aid) // it is not needed any more
	_, err = p.Thaw(s.soon())
	must(t, err)
	p = prepared()
	must(t, p.Freeze(s.soon()))
	end(p.rest)
	_, err = p.Thaw(s.soon())
	want(t, err, problem.WriterGone, writer.Retryable)
	s.free()
	p = prepared()
	must(t, p.Freeze(s.soon()))
	s.Stop()
	_, err = p.Thaw(s.soon())
	want(t, err, problem.WriterGone, writer.Retryable)
	_, err = in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
	want(t, err, problem.WriterGone, writer.Retryable)
}

// A server that does not answer is not waited for at any step, and nothing is
// at rest when it goes on.
func TestHung(t *testing.T) {
	s := start(t)
	in := s.instance(Options{})
	for _, frozen := range []bool{false, true} {
		p, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		must(t, err)
		if frozen {
			must(t, p.Freeze(s.soon()))
		}
		resume := s.Pause()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		began := time.Now()
		if frozen {
			_, err = p.Thaw(ctx)
		} else {
			err = p.Freeze(ctx)
			_, terr := p.Thaw(s.soon())
			must(t, terr)
		}
		cancel()
		want(t, err, problem.WriterTimeout, writer.TimedOut)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		resume()
		s.free()
	}
}

// A Thaw that comes while Freeze waits for a lock is not kept by that.
func TestOvertaken(t *testing.T) {
	s := start(t)
	in := s.instance(Options{LockWait: time.Minute})
	p, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: 2 * time.Minute})
	must(t, err)
	s.Must("CREATE TABLE d.my (a INT) ENGINE=MyISAM", "INSERT INTO d.my VALUES (1)")
	end := s.blocks("UPDATE d.my SET a = SLEEP(1000)")
	frozen := make(chan error, 1)
	go func() { frozen <- p.Freeze(s.soon()) }()
	waitFor(t, func() bool {
		var n int
		must(t, s.DB.QueryRow("SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'BACKUP STAGE%'").Scan(&n))
		return n == 1
	})
	began := time.Now()
	_, err = p.Thaw(s.soon())
	must(t, err)
	want(t, <-frozen, problem.WriterTimeout, writer.TimedOut)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	end()
	s.free()
}
