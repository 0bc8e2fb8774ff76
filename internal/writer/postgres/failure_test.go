package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// want fails unless an error has a code, and of a class.
func want(t testing.TB, err error, code problem.Code, class writer.Class) {
	t.Helper()
	if problem.CodeOf(err) != code || writer.ClassOf(err) != class {
		t.Errorf("%v (%s, %s); want %s, %s", err, problem.CodeOf(err), writer.ClassOf(err), code, class)
	}
}

// left waits until the server has no session of ours.
func (c *cluster) left() {
	c.Helper()
	waitFor(c, func() bool {
		var n, slots int
		must(c, c.DB.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stillpoint'").Scan(&n))
		must(c, c.DB.QueryRow("SELECT count(*) FROM pg_replication_slots").Scan(&slots))
		return n == 0 && slots == 0
	})
}

func TestPasswordAndRights(t *testing.T) {
	c := start(t, false)
	c.Must("CREATE ROLE teller LOGIN SUPERUSER PASSWORD 'right'", "CREATE ROLE clerk LOGIN")
	for _, o := range []Options{
		{User: "teller", Password: "wrong"},
		{User: "teller"},
		{User: "nobody"}, // peer knows us as root
	} {
		in := c.instance(o)
		want(t, in.Check(c.soon()), problem.WriterPassword, writer.NotRetryable)
		_, err := in.Prepare(c.soon(), writer.Need{OneInstant: true})
		want(t, err, problem.WriterPassword, writer.NotRetryable)
	}
	must(t, c.instance(Options{User: "teller", Password: "right"}).Check(c.soon()))

	clerk := c.instance(Options{User: "clerk"})
	both := func(code problem.Code) {
		t.Helper()
		errs := []error{clerk.Check(c.soon())}
		for _, one := range []bool{true, false} {
			s, err := clerk.Prepare(c.soon(), writer.Need{OneInstant: one, Window: time.Minute})
			if err == nil {
				must(t, s.Freeze(c.soon()))
				_, err = s.Thaw(c.soon())
			}
			errs = append(errs, err)
		}
		for _, err := range errs {
			if problem.CodeOf(err) != code {
				t.Errorf("%v; want %q", err, code)
			}
		}
	}
	both(problem.WriterRights)
	c.Must("GRANT pg_checkpoint TO clerk") // as the page says
	want(t, clerk.Check(c.soon()), problem.WriterRights, writer.NotRetryable)
	c.Must("GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop TO clerk")
	both("")
	c.Must("ALTER ROLE clerk REPLICATION")
	both("")
	c.left()
}

func TestNoConnectionLeft(t *testing.T) {
	c := start(t, false)
	in := c.instance(Options{})
	c.left() // nobody waits for the session that it was found with
	for {
		k, err := c.DB.Conn(c.soon())
		if err != nil {
			break
		}
		defer k.Close()
	}
	want(t, in.Check(c.soon()), problem.WriterResources, writer.OutOfResources)
	if got := c.instance(Options{}).About(); len(got.Paths) == 0 || got.Version == "" {
		t.Errorf("it is found as %+v", got)
	}
}

// A server that goes away is noticed at each step.
func TestGone(t *testing.T) {
	c := start(t, false)
	in := c.instance(Options{})
	end := func() {
		c.Must("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stillpoint'")
	}
	for _, one := range []bool{true, false} {
		s, err := in.Prepare(c.soon(), writer.Need{OneInstant: one, Window: time.Minute})
		must(t, err)
		end()
		want(t, s.Freeze(c.soon()), problem.WriterGone, writer.Retryable)
		if n, err := s.Thaw(c.soon()); err != nil || n != nil {
			t.Errorf("Thaw after a Freeze that failed: %v", err)
		}
		s, err = in.Prepare(c.soon(), writer.Need{OneInstant: one, Window: time.Minute})
		must(t, err)
		must(t, s.Freeze(c.soon()))
		end()
		_, err = s.Thaw(c.soon())
		want(t, err, problem.WriterGone, writer.Retryable)
	}
	c.left()
	c.Stop()
	_, err := in.Prepare(c.soon(), writer.Need{OneInstant: true})
	want(t, err, problem.WriterGone, writer.Retryable)
}

// A server of which nobody answers is not waited for, and has no session of
// ours when it goes on.
func TestHung(t *testing.T) {
	c := start(t, false)
	in := c.instance(Options{})
	var sessions []writer.Session
	for _, one := range []bool{true, false} {
		for range 2 {
			s, err := in.Prepare(c.soon(), writer.Need{OneInstant: one, Window: time.Minute})
			must(t, err)
			sessions = append(sessions, s)
		}
	}
	must(t, sessions[1].Freeze(c.soon()))
	must(t, sessions[3].Freeze(c.soon()))
	resume := c.Pause()
	brief := func(f func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		want(t, f(ctx), problem.WriterTimeout, writer.TimedOut)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	for i, s := range sessions {
		if i%2 == 0 {
			brief(s.Freeze)
			_, err := s.Thaw(c.soon())
			must(t, err)
		} else {
			brief(func(ctx context.Context) error { _, err := s.Thaw(ctx); return err })
		}
	}
	brief(in.Check)
	resume()
	c.left()
	must(t, in.Check(c.soon()))
}

// A role that may not keep WAL sees that some is gone.
func TestWALRemoved(t *testing.T) {
	c := start(t, false)
	c.Must("CREATE ROLE clerk LOGIN", "GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop TO clerk", "CREATE TABLE t (a text)")
	age := func(o Options) error {
		s, err := c.instance(o).Prepare(c.soon(), writer.Need{Window: time.Minute})
		must(t, err)
		must(t, s.Freeze(c.soon()))
		for range 3 {
			for range 4 {
				c.Must("INSERT INTO t SELECT repeat('x', 100) FROM generate_series(1, 1000)", "SELECT pg_switch_wal()")
			}
			c.Must("CHECKPOINT")
		}
		_, err = s.Thaw(c.soon())
		return err
	}
	want(t, age(Options{User: "clerk"}), problem.WriterRetryable, writer.Retryable)
	must(t, age(Options{})) // the same with a slot
	c.left()
}

// Who keeps WAL and says nothing for long is ended by the server.
func TestSilent(t *testing.T) {
	c := start(t, false)
	in := c.instance(Options{}).(*instance)
	k, err := in.of.connect(c.soon(), in.at)
	must(t, err)
	defer k.close()
	s, err := k.state(c.soon())
	must(t, err)
	_, err = begin(c.soon(), k, s, time.Second-slack)
	must(t, err)
	var slots int
	must(t, c.DB.QueryRow("SELECT count(*) FROM pg_replication_slots").Scan(&slots))
	if slots != 1 {
		t.Errorf("%d slots", slots)
	}
	c.left()
	want(t, (&session{conn: k, state: s}).same(c.soon()), problem.WriterGone, writer.Retryable)
}

// A server that writes too little WAL for a backup of several instants is one
// for which nobody needs to try again.
func TestMinimal(t *testing.T) {
	c := start(t, false)
	c.Must("ALTER SYSTEM SET wal_level = minimal", "ALTER SYSTEM SET max_wal_senders = 0")
	c.Stop()
	c.Serve()
	in := c.instance(Options{})
	_, err := in.Prepare(c.soon(), writer.Need{Window: time.Minute})
	want(t, err, problem.WriterFailed, writer.NotRetryable)
	s, err := in.Prepare(c.soon(), writer.Need{OneInstant: true, Window: time.Minute})
	must(t, err)
	_, err = s.Thaw(c.soon())
	must(t, err)
	c.left()
}

func TestTooMuchWAL(t *testing.T) {
	n := &notes{data: t.TempDir()}
	label := "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
	want(t, n.wal(16<<20, label, "1/0"), problem.WriterResources, writer.OutOfResources)
	want(t, n.wal(16<<20, "", "1/0"), problem.WriterFailed, writer.NotRetryable)
}

func TestSegments(t *testing.T) {
	for _, c := range []struct {
		lsn     string
		segment int64
		name    string
	}{
		{"0/2000100", 16 << 20, "000000010000000000000002"},
		{"0/3000000", 16 << 20, "000000010000000000000002"},
		{"2/0", 16 << 20, "0000000100000001000000FF"},
		{"A/FF000001", 16 << 20, "000000010000000A000000FF"},
		{"1/1", 1 << 20, "000000010000000100000000"},
		{"1/0", 1 << 30, "000000010000000000000003"},
	} {
		s, err := segmentBefore(c.lsn, c.segment)
		must(t, err)
		if got := segmentName(1, s, c.segment); got != c.name {
			t.Errorf("%s: %s, want %s", c.lsn, got, c.name)
		}
		timeline, first, err := startIn(fmt.Sprintf("START WAL LOCATION: %s (file %s)\nX: y\n", c.lsn, c.name), c.segment)
		if err != nil || timeline != 1 || first != s {
			t.Errorf("%s: %d, %d, %v", c.name, timeline, first, err)
		}
	}
}
