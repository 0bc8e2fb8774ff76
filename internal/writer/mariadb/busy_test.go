package mariadb

import (
	"context"
	"fmt"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/writertest/bank"
)

// want fails unless an error has a code, and of a class.
func want(t testing.TB, err error, code problem.Code, class writer.Class) {
	t.Helper()
	if problem.CodeOf(err) != code || writer.ClassOf(err) != class {
		t.Errorf("%v (%s, %s); want %s, %s", err, problem.CodeOf(err), writer.ClassOf(err), code, class)
	}
}

// blocks runs statements on a connection of their own. It returns when all are
// done, or the last one sleeps; what it returns ends the connection.
func (s *mariadbd) blocks(statements ...string) (end func()) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	k, err := s.DB.Conn(ctx)
	must(s, err)
	var id int64
	must(s, k.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id))
	done := make(chan error, 1)
	go func() {
		for _, q := range statements {
			if _, err := k.ExecContext(ctx, q); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for sleeps, over := false, false; !sleeps && !over; {
		select {
		case err := <-done:
			must(s, err)
			done <- nil
			over = true
		case <-time.After(5 * time.Millisecond):
			var n int
			must(s, s.DB.QueryRow("SELECT count(*) FROM information_schema.PROCESSLIST WHERE ID = ? AND STATE = 'User sleep'", id).Scan(&n))
			sleeps = n == 1
		}
	}
	return func() {
		_, _ = s.DB.Exec(fmt.Sprintf("KILL %d", id))
		<-done
		cancel()
		k.Close()
	}
}

const lockWait = time.Second

// Whatever our clients do: we come to rest, or give up in time, and nobody
// waits for longer than that.
func TestBusy(t *testing.T) {
	s := start(t)
	must(t, bank.Found(s.soon(), s.Open("root", "d"), "ENGINE=InnoDB"))
	s.Must("CREATE TABLE d.my (a INT) ENGINE=MyISAM", "CREATE TABLE d.other (a INT) ENGINE=MyISAM", "INSERT INTO d.my VALUES (1), (2)")
	load := bank.Open(s.Open("root", "d"), 2)
	in := s.instance(Options{LockWait: lockWait})
	for name, c := range map[string]struct {
		statements []string
		busy       bool
	}{
		"a long query":                  {[]string{"SELECT SLEEP(1000) FROM d.my LIMIT 1"}, false},
		"a long query of InnoDB":        {[]string{"SELECT SLEEP(1000) FROM d.accounts LIMIT 1"}, false},
		"a long transaction":            {[]string{"BEGIN", "INSERT INTO d.written VALUES (5)"}, false},
		"a long change":                 {[]string{"UPDATE d.my SET a = SLEEP(1000)"}, true},
		"a long change of InnoDB":       {[]string{"UPDATE d.written SET a = SLEEP(1000)"}, false},
		"tables locked":                 {[]string{"LOCK TABLES d.my WRITE"}, true},
		"the global read lock":          {[]string{"FLUSH TABLES WITH READ LOCK"}, false},
		"another backup, which is ours": {[]string{"BACKUP STAGE START"}, true},
	} {
		end := s.blocks(c.statements...)
		load.Slowest()
		other := s.prober()
		began := time.Now()
		p, err := in.Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		if err == nil {
			err = p.Freeze(s.soon())
			_, terr := p.Thaw(s.soon())
			must(t, terr)
		}
		took := time.Since(began)
		waited, slowest := other(), load.Slowest()
		end()
		if name == "the global read lock" {
			waited, slowest = 0, 0 // all wait for that one
		}
		if c.busy {
			want(t, err, problem.WriterBusy, writer.Retryable)
		} else {
			must(t, err)
		}
		t.Logf("%s: %v after %v; others waited for %v and %v", name, err, took, slowest, waited)
		if limit := lockWait + 4*time.Second; took > limit || slowest > limit || waited > limit {
			t.Errorf("%s: it took %v, and others waited for %v and %v", name, took, slowest, waited)
		}
		s.free()
	}
	must(t, load.Close())
}

// prober changes a table without transactions again and again. What it returns
// ends it and tells how long the longest change took.
func (s *mariadbd) prober() func() time.Duration {
	ctx, cancel := context.WithCancel(s.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		var slowest time.Duration
		for ctx.Err() == nil {
			began := time.Now()
			_, _ = s.DB.ExecContext(ctx, "INSERT INTO d.other VALUES (1)") // fails when it is ended
			slowest = max(slowest, time.Since(began))
		}
		longest <- slowest
	}()
	return func() time.Duration { cancel(); return <-longest }
}

// Where tables have to be flushed, that is not begun beside a long query, since
// others would then wait for that query, too.
func TestReadLock(t *testing.T) {
	s := start(t)
	s.Must("CREATE TABLE d.other (a INT) ENGINE=MyISAM", "INSERT INTO d.other VALUES (1), (2)")
	flushing := func() writer.Session {
		p, err := s.instance(Options{LockWait: lockWait}).Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		must(t, err)
		k := p.(*session)
		_, err = k.rest.ExecContext(s.soon(), "BACKUP STAGE END")
		must(t, err)
		k.way = way{freeze: locks.freeze, thaw: locks.thaw[:1], flushes: locks.flushes}
		return p
	}
	p := flushing()
	must(t, p.Freeze(s.soon()))
	ctx, cancel := context.WithTimeout(s.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Write(ctx); err == nil {
		t.Error("a change was made")
	}
	_, err := p.Thaw(s.soon())
	must(t, err)
	s.free()

	end := s.blocks("SELECT SLEEP(1000) FROM d.other LIMIT 1")
	defer end()
	waitFor(t, func() bool {
		var n int
		must(t, s.DB.QueryRow("SELECT count(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep' AND TIME >= 2").Scan(&n))
		return n == 1
	})
	other := s.prober()
	p = flushing()
	want(t, p.Freeze(s.soon()), problem.WriterBusy, writer.Retryable)
	_, err = p.Thaw(s.soon())
	must(t, err)
	if waited := other(); waited > lockWait+4*time.Second {
		t.Errorf("others waited for %v", waited)
	}
}
