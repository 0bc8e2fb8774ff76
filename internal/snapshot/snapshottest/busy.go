package snapshottest

import (
	"fmt"
	"testing"
)

// Busy keeps a directory busy with the writers of the prefix checks, for tests
// of whole backups: what is restored must show a prefix of their steps, too.
type Busy struct {
	c    *C
	team *team
	stop func()
}

// StartBusy starts the writers in dir. They end with the test, or with Stop.
func StartBusy(tb testing.TB, dir string) *Busy {
	tb.Helper()
	b := &Busy{c: &C{TB: tb, ctx: tb.Context()}}
	b.team, b.stop = b.c.startTeam([]Volume{{Dir: dir}}, durable)
	return b
}

// Stop ends the writers. It may be called twice.
func (b *Busy) Stop() { b.stop() }

// Now is the writers' clock. It is read before and after what is checked.
func (b *Busy) Now() uint64 { return b.team.clock.Add(1) }

// Check fails the test unless a restored copy of the directory shows, for each
// writer, exactly the steps 1 to k for some k that it can have been at between
// the two times, and of all writers one cut.
func (b *Busy) Check(restored string, from, to uint64) {
	b.c.Helper()
	var cuts []cut
	for i, w := range b.team.writers[0] {
		tr, err := readTrace(restored + fmt.Sprint("/writer", i))
		if err != nil {
			b.c.Errorf("writer %d: %v", i, err)
			continue
		}
		n, err := w.prefix(tr, window{from, to})
		if err != nil {
			b.c.Errorf("writer %d %v", i, err)
			continue
		}
		cuts = append(cuts, cut{writer: w, steps: n})
	}
	b.c.consistent(cuts)
}
