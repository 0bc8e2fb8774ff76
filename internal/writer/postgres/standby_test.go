package postgres

import (
	"os"
	"testing"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/writertest/bank"
)

// A standby is backed up as a primary is, in both ways.
func TestStandby(t *testing.T) {
	c := start(t, false)
	c.must("CREATE EXTENSION amcheck")
	must(t, bank.Found(c.soon(), c.db, ""))
	s := &cluster{TB: t, dir: owned(t)}
	s.socket, s.data = s.dir, s.dir+"/data"
	run(t, "pg_basebackup", "-h", c.socket, "-D", s.data, "-R", "--checkpoint=fast", "--no-sync")
	s.serve()
	load := bank.Open(c.db, 4)
	for _, one := range []bool{true, false} {
		made := load.Made()
		waitFor(t, func() bool { return load.Made() > made+100 })
		in := s.instance(Options{})
		must(t, in.Check(s.soon()))
		rest, err := in.Prepare(s.soon(), writer.Need{OneInstant: one, Window: time.Minute})
		must(t, err)
		after := load.Now()
		var end string
		must(t, c.db.QueryRow("SELECT pg_current_wal_flush_lsn()").Scan(&end))
		waitFor(t, func() bool {
			var there bool
			must(t, s.db.QueryRow("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", end).Scan(&there))
			return there
		})
		must(t, rest.Freeze(s.soon()))
		r := s.copies()
		if one {
			resume := s.pause()
			r.copy("data")
			resume()
		} else {
			r.copy("data")
			made := load.Made()
			waitFor(t, func() bool { return load.Made() > made+100 })
		}
		notes, err := rest.Thaw(s.soon())
		must(t, err)
		if one != (len(notes) == 0) {
			t.Errorf("one instant: %v, and %d notes", one, len(notes))
		}
		must(t, os.Remove(r.to.data+"/standby.signal")) // the copy is to be a server of its own
		r.check(notes, load, after, load.Now())
	}
	must(t, load.Close())
}
