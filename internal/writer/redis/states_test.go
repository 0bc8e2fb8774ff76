package redis

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// What a server is busy with before it may rest, and what it says when it cannot.
func TestStates(t *testing.T) {
	idle := func(s *session, ctx context.Context) error { return s.idle(ctx) }
	settle := func(s *session, ctx context.Context) error { return s.settle(ctx) }
	for _, tt := range []struct {
		name  string
		what  func(*session, context.Context) error
		keeps storage
		state map[string]string
		code  problem.Code
		waits bool // for ever, if nobody ends it
	}{
		{"it saves", idle, appended, map[string]string{"rdb_bgsave_in_progress": "1"}, problem.WriterBusy, true},
		{"it rewrites", idle, appended, map[string]string{"aof_rewrite_in_progress": "1"}, problem.WriterBusy, true},
		{"it will rewrite", idle, appended, map[string]string{"aof_rewrite_scheduled": "1"}, problem.WriterBusy, true},
		{"it cannot append", idle, appended, map[string]string{"aof_last_write_status": "err"}, problem.WriterResources, false},
		{"it does not append", idle, savedNowAndThen, map[string]string{"aof_last_write_status": "err"}, "", false},
		{"all is appended", settle, appended, nil, "", false},
		{"not all is appended", settle, appended, map[string]string{"aof_buffer_length": "7"}, problem.WriterTimeout, true},
		{"it appends no more", settle, appended, map[string]string{"aof_enabled": "0"}, problem.WriterBusy, false},
		{"it rewrites meanwhile", settle, appended, map[string]string{"aof_rewrite_in_progress": "1"}, problem.WriterBusy, false},
		{"it cannot append any more", settle, appended, map[string]string{"aof_last_write_status": "err"}, problem.WriterResources, false},
		{"all is saved", settle, savedNowAndThen, nil, "", false},
		{"it saves for long", settle, savedNowAndThen, map[string]string{"rdb_bgsave_in_progress": "1"}, problem.WriterTimeout, true},
		{"it rewrites for long", settle, savedNowAndThen, map[string]string{"aof_rewrite_in_progress": "1"}, problem.WriterTimeout, true},
		{"it cannot save", settle, savedNowAndThen, map[string]string{"rdb_changes_since_last_save": "3", "rdb_last_bgsave_status": "err"}, problem.WriterResources, false},
		{"it has saved less than all", settle, savedNowAndThen, map[string]string{"rdb_changes_since_last_save": "3"}, problem.WriterRetryable, false},
		{"the disk has no room", settle, savedNowAndThen, map[string]string{"rdb_changes_since_last_save": "3", "used_memory_dataset": "18000000000000000000"}, problem.WriterResources, false},
		{"it keeps nothing", settle, nothing, map[string]string{"rdb_changes_since_last_save": "3"}, "", false},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/dump.rdb", nil, 0o600))
		f := newFake(t, tt.state)
		s := f.session(dir, tt.keeps)
		done := make(chan error, 1)
		go func() { done <- tt.what(s, t.Context()) }()
		if tt.waits {
			waitFor(t, tt.name+": it is asked again", func() bool { return f.heard("INFO") > 2 })
			close(s.over)
		}
		if err := <-done; problem.CodeOf(err) != tt.code {
			t.Errorf("%s: %q, want %q: %v", tt.name, problem.CodeOf(err), tt.code, err)
		}
		saves := 0
		if tt.code == problem.WriterRetryable || tt.state["rdb_last_bgsave_status"] == "err" {
			saves = 1
		}
		if n := f.heard("BGSAVE"); n != saves {
			t.Errorf("%s: it was to save %d times", tt.name, n)
		}
	}
}

// A file that is gone is written anew, though nothing has changed; and somebody else's
// child that has just begun to write is waited for.
func TestSaveAgain(t *testing.T) {
	f := newFake(t, nil)
	f.set("BGSAVE", "-ERR Background save already in progress\r\n")
	s := f.session(t.TempDir(), savedNowAndThen)
	done := make(chan error, 1)
	go func() { done <- s.saved(f.Context()) }()
	waitFor(t, "it is asked again", func() bool { return f.heard("BGSAVE") > 1 })
	must(t, os.WriteFile(s.about.Paths[0]+"/dump.rdb", nil, 0o600))
	must(t, <-done)
	f.set("BGSAVE", "-MISCONF Errors writing to disk\r\n")
	must(t, os.Remove(s.about.Paths[0]+"/dump.rdb"))
	wants(t, problem.WriterResources, s.saved(f.Context()))
}

// What a server must be able to, and must let us do.
func TestExamine(t *testing.T) {
	const denied = "-NOPERM this user has no permissions\r\n"
	for _, tt := range []struct {
		name           string
		state, answers map[string]string
		keeps          storage
		code           problem.Code
	}{
		{"appends", nil, nil, appended, ""},
		{"saves", map[string]string{"aof_enabled": "0"}, nil, savedNowAndThen, ""},
		{"keeps nothing", map[string]string{"aof_enabled": "0"}, map[string]string{"CONFIG GET save": "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"}, nothing, ""},
		{"does not say whether it saves", map[string]string{"aof_enabled": "0"}, map[string]string{"CONFIG GET save": denied}, savedNowAndThen, ""},
		{"may not be saved", map[string]string{"aof_enabled": "0"}, map[string]string{"BGSAVE": denied}, savedNowAndThen, problem.WriterRights},
		{"may not be paused", nil, map[string]string{"CLIENT PAUSE": denied}, nothing, problem.WriterRights},
		{"is old", map[string]string{"redis_version": "6.0.20"}, nil, nothing, problem.WriterFailed},
		{"is loading", map[string]string{"loading": "1"}, nil, nothing, problem.WriterRetryable},
		{"tells nothing", nil, map[string]string{"INFO": denied}, nothing, problem.WriterRights},
	} {
		f := newFake(t, tt.state)
		for begin, answer := range tt.answers {
			f.set(begin, answer)
		}
		in := f.instance(t.TempDir())
		c, err := in.dial(t.Context())
		must(t, err)
		keeps, err := in.examine(t.Context(), c)
		c.close()
		if keeps != tt.keeps || problem.CodeOf(err) != tt.code {
			t.Errorf("%s: %v, %v", tt.name, keeps, err)
		}
		wants(t, tt.code, in.Check(t.Context()))
	}
	f := newFake(t, nil)
	in := f.instance(t.TempDir())
	in.unseen = errors.New("on another's disk")
	wants(t, problem.WriterRights, in.Check(t.Context()))
}

// How a pause ends that did not last, and that nobody asks for more when it has ended.
func TestPause(t *testing.T) {
	f := newFake(t, nil)
	in := f.instance(t.TempDir())
	in.length = 20 * time.Millisecond
	start := func(p *pause) *pause {
		t.Helper()
		var err error
		p.in, p.stop, p.end = in, make(chan struct{}), time.Now().Add(time.Hour)
		p.conn, err = in.dial(t.Context())
		must(t, err)
		return p
	}
	p := start(&pause{begun: true})
	must(t, p.ask(t.Context()))
	time.Sleep(2 * in.length) // not a condition: the time that it has
	wants(t, problem.WriterTimeout, p.ask(t.Context()))
	lasted, ended := p.finish(t.Context())
	wants(t, problem.WriterTimeout, lasted)
	must(t, ended)

	odd := errors.New("odd")
	lasted, ended = start(&pause{begun: true, until: time.Now().Add(time.Hour), late: odd}).finish(t.Context())
	if !errors.Is(lasted, odd) || ended != nil {
		t.Errorf("one that was late: %v, %v", lasted, ended)
	}
	lasted, _ = start(&pause{begun: true, until: time.Now().Add(-time.Second)}).finish(t.Context())
	wants(t, problem.WriterTimeout, lasted)
	p = start(&pause{begun: true, until: time.Now().Add(time.Hour)})
	p.end = time.Now().Add(-time.Second)
	lasted, _ = p.finish(t.Context())
	wants(t, problem.WindowClosed, lasted)

	before := f.heard("CLIENT PAUSE")
	p = start(&pause{begun: true, finished: true, until: time.Now().Add(time.Hour)})
	p.renew()
	p.conn.close()
	p = start(&pause{})
	_, _ = p.finish(t.Context())
	if err := p.begin(t.Context(), time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("one that was ended before it began: %v", err)
	}
	if n := f.heard("CLIENT PAUSE"); n != before {
		t.Errorf("a pause was asked for %d times after its end", n-before)
	}
	// One that cannot be ended says so; a connection that broke is made anew.
	f.set("CLIENT UNPAUSE", "-NOPERM\r\n")
	_, ended = start(&pause{begun: true, until: time.Now().Add(time.Hour)}).finish(t.Context())
	wants(t, problem.WriterRights, ended)
}

// A session that is thawed while it comes to rest gives up, and what did not rest is
// not said to have.
func TestOvertaken(t *testing.T) {
	f := newFake(t, map[string]string{"aof_buffer_length": "7"})
	s := f.session(t.TempDir(), appended)
	frozen := make(chan error, 1)
	go func() { frozen <- s.Freeze(f.Context()) }()
	waitFor(t, "it is asked", func() bool { return f.heard("CLIENT PAUSE") > 0 })
	_, err := s.Thaw(f.Context())
	must(t, err)
	if err := <-frozen; err == nil {
		t.Error("it rests although it was thawed")
	}

	// Freeze that fails ends the pause itself.
	f = newFake(t, map[string]string{"aof_enabled": "0"})
	s = f.session(t.TempDir(), appended)
	wants(t, problem.WriterBusy, s.Freeze(f.Context()))
	if n := f.heard("CLIENT UNPAUSE"); n != 1 {
		t.Errorf("the pause was ended %d times", n)
	}
	// Nothing is asked for when there is no time left.
	s = f.session(t.TempDir(), appended)
	before := f.heard("CLIENT PAUSE")
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	wants(t, problem.WriterTimeout, s.Freeze(ctx))
	if f.heard("CLIENT PAUSE") != before {
		t.Error("a pause was asked for without time")
	}
	// A Freeze that does not come back keeps Thaw no longer than it may take.
	s = f.session(t.TempDir(), appended)
	s.begun = true
	began := time.Now()
	_, err = s.Thaw(briefly(t))
	must(t, err)
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

// A pause that could not be ended is an error of Thaw.
func TestThawSaysWhatFailed(t *testing.T) {
	f := newFake(t, nil)
	s := f.session(t.TempDir(), appended)
	must(t, s.Freeze(f.Context()))
	f.set("CLIENT UNPAUSE", "-NOPERM\r\n")
	_, err := s.Thaw(f.Context())
	wants(t, problem.WriterRights, err)
}
