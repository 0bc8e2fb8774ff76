package redis

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/writer"
)

// What is copied while the server rests is all that was acknowledged, and
// nothing else, in a server that starts from the copy.
func TestRestore(t *testing.T) {
	for name, args := range map[string][]string{
		"always":  {"--appendonly", "yes", "--appendfsync", "always"},
		"second":  {"--appendonly", "yes", "--appendfsync", "everysec"},
		"no":      {"--appendonly", "yes", "--appendfsync", "no"},
		"rdb":     {"--save", "3600 1"},
		"both":    {"--save", "3600 1", "--appendonly", "yes"},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, args...)
			l := s.load(t, 4)
			for range 3 {
				l.waitForSome(t)
				session := s.prepare(Options{}, writer.Need{OneInstant: true, Window: time.Minute})
				must(t, session.Freeze(s.within(long)))
				copied := t.TempDir()
				want := s.values(l)
				waitFor(t, "all clients have their answers", func() bool { return equal(l.acknowledged(), want) })
				must(t, os.CopyFS(copied+"/data", os.DirFS(s.Data)))
				again := s.values(l)
				if !equal(want, again) {
					t.Errorf("it changed while it rested: %v, %v", want, again)
				}
				_, err := session.Thaw(s.within(long))
				must(t, err)
				if name == "nothing" {
					clear(want)
				}
				restored := startIn(t, copied+"/data", args...)
				waitFor(t, "it has loaded", func() bool { return restored.info("persistence", "loading") == "0" })
				if got := restored.values(l); !equal(got, want) {
					t.Errorf("restored %v, want %v", got, want)
				}
				restored.Stop()
			}
			s.goesOn(long)
		})
	}
}

// A load is clients that count, each its own key.
type load struct{ done []atomic.Int64 }

func (s *server) load(t *testing.T, clients int) *load {
	l := &load{make([]atomic.Int64, clients)}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	t.Cleanup(func() { cancel(); wait.Wait() })
	for i := range clients {
		rc, err := redis.Dial("unix", s.Socket())
		must(t, err)
		wait.Go(func() {
			defer rc.Close()
			for ctx.Err() == nil {
				n, err := redis.Int64(redis.DoContext(rc, ctx, "INCR", key(i)))
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				l.done[i].Store(n)
			}
		})
	}
	return l
}

func key(i int) string { return "count:" + strconv.Itoa(i) }

func (l *load) waitForSome(t *testing.T) {
	from := l.acknowledged()
	waitFor(t, "changes are made", func() bool {
		for i, n := range l.acknowledged() {
			if n < from[i]+50 {
				return false
			}
		}
		return true
	})
}

func (l *load) acknowledged() map[int]int64 {
	all := map[int]int64{}
	for i := range l.done {
		all[i] = l.done[i].Load()
	}
	return all
}

// values are what the server has.
func (s *server) values(l *load) map[int]int64 {
	s.Helper()
	all := map[int]int64{}
	for i := range l.done {
		n, err := redis.Int64(s.Do("GET", key(i)), nil)
		if err == nil {
			all[i] = n
		} else if err != redis.ErrNil {
			s.Fatal(err)
		}
	}
	return all
}

func equal(a, b map[int]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i, n := range a {
		if b[i] != n {
			return false
		}
	}
	return true
}
