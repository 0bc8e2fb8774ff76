package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/writer/writertest/bank"
)

// What clients may wait for longer than the window that the report names: no
// access waits for more than a second because of a snapshot that is there. The
// rest is the machine's, as a pace tells it.
const patience = time.Second

// clocks is how exactly the moment of a time in a report is known.
const clocks = bank.Moment(5 * time.Millisecond)

// TestBank takes backups of servers under a load of bank transfers. Each, when
// it is restored, starts, is sound, and has all that was acknowledged before
// its instant and nothing that began after it. STILLPOINT_TEST_CAPTURES says how
// many backups to take of each; where the WAL is apart, it is half of them.
func TestBank(t *testing.T) {
	captures := 2
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_CAPTURES")); err == nil {
		captures = n
	}
	p := newProgram(t)
	p.env = append(p.env, roomForServers)
	for _, c := range []struct {
		name  string
		kinds []string
		one   bool
		open  func(t *testing.T, dirs ...string) *branch
	}{
		{"PostgreSQL", []string{"ext4"}, true, postgreSQL},
		{"PostgreSQL, WAL apart", []string{"ext4", "xfs"}, true, postgreSQL},
		{"PostgreSQL, two instants", []string{"btrfs", "btrfs"}, false, postgreSQL},
		{"MariaDB", []string{"xfs"}, true, func(t *testing.T, dirs ...string) *branch { return mariaDB(t, dirs[0]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := *p
			p.t = t
			pace := newPace(t)
			b := c.open(t, volumesFor(t, c.kinds...)...)
			var waits []time.Duration
			var longest time.Duration
			captures := captures
			if len(c.kinds) > 1 {
				captures = max(1, captures/2)
			}
			for i := range captures {
				t.Run(strconv.Itoa(i), func(t *testing.T) {
					p := p
					p.t = t
					b.more(t, 50)
					w, rested := p.banked(b, c.one, pace)
					waits, longest = append(waits, w...), max(longest, rested)
				})
			}
			if t.Failed() {
				return
			}
			slices.Sort(waits)
			t.Logf("%d backups under %d transfers; at rest for %v at most; who was under way meanwhile waited for %v in the median, %v at most",
				captures, len(waits), longest, waits[len(waits)/2], waits[len(waits)-1])
		})
	}
}

// banked takes one backup of a branch, restores it and looks whether it is
// right. It returns how long clients waited meanwhile, and the window.
func (p *program) banked(b *branch, one bool, pace *pace) (waits []time.Duration, rested time.Duration) {
	t := p.t
	<-pace.slowest
	from := b.Now()
	rep := p.report(append([]string{"backup", "--require", "application", "--json"}, b.dirs...)...)
	to := b.Now()
	waits = b.Waits(from, to)
	slow := <-pace.slowest
	if rep.Level != job.Application || rep.Status != job.Complete || rep.OneInstant != one || len(rep.Applications) != 1 {
		t.Fatalf("%+v", rep)
	}
	app := rep.Applications[0]
	if !app.AtRest || !strings.HasPrefix(app.ID, b.app) {
		t.Fatalf("%+v", app)
	}
	rested = time.Duration(app.Rested)
	if w := slices.Max(waits); w > rested+patience+flushes*slow {
		t.Errorf("a client waited for %v, and the window was %v; a write beside it took %v at most", w, rested, slow)
	}
	after, before := b.At(rep.Volumes[0].Instant)-clocks, b.At(rep.Volumes[0].Instant)+clocks
	if !one {
		before = to // a backup of several instants recovers to its end
	}
	if after < from-clocks || after > to {
		t.Fatalf("the instant %v was not between %v and %v", after, from, to)
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, dir := range b.dirs {
		p.must("restore", "latest:"+dir, "--to", out)
	}
	db := b.restored(t, out)
	if err := b.Check(t.Context(), db, after, before); err != nil {
		t.Errorf("restored: %v", err)
	}
	return waits, rested
}
