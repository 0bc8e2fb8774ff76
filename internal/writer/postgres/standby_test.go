package postgres

import (
	"os"
	"testing"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/writertest/bank"
)

// A standby is backed up as a primary is, in both ways.
func TestStandby(t *testing.T) {
	c := start(t, false)
	c.Must("CREATE EXTENSION amcheck")
	must(t, bank.Found(c.soon(), c.DB, ""))
	s := &cluster{servertest.NewPostgreSQL(t)}
	c.Run("pg_basebackup", "-h", c.Dir, "-D", s.Data, "-R", "--checkpoint=fast", "--no-sync")
	s.Serve()
	load := bank.Open(c.DB, 4)
	for _, one := range []bool{true, false} {
		made := load.Made()
		waitFor(t, func() bool { return load.Made() > made+100 })
		in := s.instance(Options{})
		must(t, in.Check(s.soon()))
		rest, err := in.Prepare(s.soon(), writer.Need{OneInstant: one, Window: time.Minute})
		must(t, err)
		after := load.Now()
		var end string
		must(t, c.DB.QueryRow("SELECT pg_current_wal_flush_lsn()").Scan(&end))
		waitFor(t, func() bool {
			var there bool
			must(t, s.DB.QueryRow("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", end).Scan(&there))
			return there
		})
		must(t, rest.Freeze(s.soon()))
		r := s.copies()
		if one {
			resume := s.Pause()
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
		must(t, os.Remove(r.to.Data+"/standby.signal")) // the copy is to be a server of its own
		r.check(notes, load, after, load.Now())
	}
	must(t, load.Close())
}
