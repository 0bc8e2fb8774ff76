package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/scratch"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/writertest/bank"
)

// A town has a bank at each kind of server, and a Redis that counts, on two
// volumes, and a program that is to back them up.
type town struct {
	*program
	vols  []*scratch.Volume
	dirs  []string // where they are
	banks []*branch
	count *counter
	pace  *pace
}

func newTown(t *testing.T, config string) *town {
	w := &town{program: newProgram(t), pace: newPace(t)}
	for _, fs := range []string{"ext4", "xfs"} {
		v := scratch.New(t, fs, 512*scratch.MiB)
		w.vols, w.dirs = append(w.vols, v), append(w.dirs, v.Dir)
	}
	path := filepath.Join(w.dir, "config.yaml")
	need(t, os.WriteFile(path, []byte(config), 0o644))
	w.env = append(w.env, "STILLPOINT_CONFIG="+path, roomForServers)
	w.banks = []*branch{postgreSQL(t, w.dirs[0]), mariaDB(t, w.dirs[1])}
	w.count = newCounter(t, w.dirs[0])
	return w
}

// in is the same for a subtest.
func (w *town) in(t *testing.T) *town {
	p, in := *w.program, *w
	p.t, in.program = t, &p
	return &in
}

// A counter is a client of a Redis that counts.
type counter struct {
	*servertest.Redis
	mu    sync.Mutex
	ended []time.Time // of each step, in order
	err   error
}

func newCounter(t *testing.T, dir string) *counter {
	data := filepath.Join(dir, "redis")
	need(t, os.Mkdir(data, 0o755))
	c := &counter{Redis: servertest.NewRedis(t, data, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")}
	c.Serve()
	rc, err := redis.Dial("unix", c.Socket())
	need(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-ended
		if c.err != nil {
			t.Error(c.err)
		}
		rc.Close()
	})
	go func() {
		defer close(ended)
		for c.step(ctx, rc) {
			time.Sleep(time.Millisecond) // one client shall not have all of a processor
		}
	}()
	return c
}

func (c *counter) step(ctx context.Context, rc redis.Conn) bool {
	n, err := redis.Int(redis.DoContext(rc, ctx, "INCR", "n"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	c.ended = append(c.ended, time.Now())
	if err == nil && n != len(c.ended) {
		err = fmt.Errorf("%d in step %d", n, len(c.ended))
	}
	c.err = err
	return err == nil
}

// since is how long after a time the first step ended; done says that one has.
func (c *counter) since(at time.Time) (wait time.Duration, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := slices.BinarySearchFunc(c.ended, at, time.Time.Compare)
	if i == len(c.ended) {
		return time.Since(at), false
	}
	return c.ended[i].Sub(at), true
}

// goesOn waits until all clients have gone on, and fails where one had to wait
// for longer than the limit from now on.
func (w *town) goesOn(limit time.Duration) {
	w.t.Helper()
	<-w.pace.slowest
	now := time.Now()
	moments := make([]bank.Moment, len(w.banks))
	for i, b := range w.banks {
		moments[i] = b.Now()
	}
	var waits []time.Duration
	for i, b := range w.banks {
		until(w.t, "all transfers go on", func() bool {
			need(w.t, b.Err())
			_, done := b.Since(moments[i])
			return done
		})
		last, _ := b.Since(moments[i])
		waits = append(waits, last)
	}
	until(w.t, "the counter goes on", func() bool { _, done := w.count.since(now); return done })
	last, _ := w.count.since(now)
	waits = append(waits, last)
	slow := <-w.pace.slowest
	w.t.Logf("from now on PostgreSQL waited for %v, MariaDB %v, Redis %v; a write beside them took %v at most", waits[0], waits[1], waits[2], slow)
	if longest := slices.Max(waits); longest > limit+flushes*slow {
		w.t.Errorf("a client waited for %v, and %v is the limit; a write beside it took %v at most", longest, limit, slow)
	}
	for _, b := range w.banks {
		b.more(w.t, clients)
	}
}

// clear fails where something of ours is locked, under way or left.
func (w *town) clear() {
	w.t.Helper()
	for _, b := range w.banks {
		b.free(w.t)
	}
	w.gone()
	b, err := os.ReadFile("/proc/self/mountinfo")
	need(w.t, err)
	for line := range strings.Lines(string(b)) {
		for _, v := range w.vols {
			if strings.Contains(line, v.Devices[0]+" ") && !strings.Contains(line, " "+v.Dir+" ") {
				w.t.Errorf("mounted: %s", line)
			}
		}
	}
}

// gone waits until no process of the program's is there.
func (w *town) gone() {
	w.t.Helper()
	until(w.t, "no process of ours is left", func() bool {
		found, err := filepath.Glob("/proc/[0-9]*/exe")
		need(w.t, err)
		return !slices.ContainsFunc(found, func(exe string) bool {
			to, err := os.Readlink(exe)
			return err == nil && to == w.path
		})
	})
}

// reaches starts a backup of the town, and waits until it is at a fault point,
// where it stays until the file reached is removed. What it returns waits for the end.
func (w *town) reaches(point, config string, out *strings.Builder) (backup *os.Process, reached string, end func() error) {
	w.t.Helper()
	reached = filepath.Join(w.t.TempDir(), "reached")
	c := w.command([]string{"STILLPOINT_CONFIG=" + config, "STILLPOINT_FAULT=wait:" + point, "STILLPOINT_FAULT_REACHED=" + reached}, append([]string{"backup", "--json"}, w.dirs...)...)
	c.Stdout, c.Stderr = out, os.Stderr
	need(w.t, c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	until(w.t, point+" is reached", func() bool {
		select {
		case err := <-ended:
			w.t.Fatalf("it ends before: %v: %s", err, out)
		default:
		}
		_, err := os.Stat(reached)
		return err == nil
	})
	return c.Process, reached, func() error { return <-ended }
}
