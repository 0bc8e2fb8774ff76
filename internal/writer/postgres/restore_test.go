package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/writertest/bank"
)

// Of one instant: what is copied while all of the server stands still recovers
// to exactly what was committed, and is sound.
func TestOneInstant(t *testing.T) {
	c := start(t, true)
	c.Must("CREATE EXTENSION amcheck")
	must(t, bank.Found(c.soon(), c.DB, "TABLESPACE side"))
	load := bank.Open(c.DB, 4)
	waitFor(t, func() bool { return load.Made() > 100 })
	for range 3 {
		s, err := c.instance(Options{}).Prepare(c.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		must(t, err)
		made := load.Made()
		waitFor(t, func() bool { return load.Made() > made+20 })
		must(t, s.Freeze(c.soon()))
		after := load.Now()
		resume := c.Pause()
		r := c.copies()
		for _, part := range r.parts {
			r.copy(part)
		}
		resume()
		before := load.Now()
		notes, err := s.Thaw(c.soon())
		must(t, err)
		if len(notes) != 0 {
			t.Errorf("%d notes", len(notes))
		}
		r.check(notes, load, after, before)
	}
	must(t, load.Close())
}

// Copied one after the other, and while they change: the WAL first, then the
// data directory, then the tablespace, or the other way round.
func TestApart(t *testing.T) {
	c := start(t, true)
	c.Must("CREATE EXTENSION amcheck")
	must(t, bank.Found(c.soon(), c.DB, "TABLESPACE side"))
	load := bank.Open(c.DB, 4)
	for _, order := range [][]string{{"wal", "data", "side"}, {"side", "data", "wal"}} {
		apart(c, load, order)
	}
	must(t, load.Close())
}

func apart(c *cluster, load *bank.Bank, order []string) {
	c.Helper()
	more := func() {
		made := load.Made()
		waitFor(c, func() bool { return load.Made() > made+100 })
	}
	more()
	s, err := c.instance(Options{}).Prepare(c.soon(), writer.Need{Window: time.Minute})
	must(c, err)
	more()
	after := load.Now()
	must(c, s.Freeze(c.soon()))
	r := c.copies()
	for _, part := range order {
		r.copy(part)
		more()
	}
	c.Must("CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT") // the server would remove what it need not keep
	more()
	notes, err := s.Thaw(c.soon())
	must(c, err)
	before := load.Now()
	c.left()
	r.check(notes, load, after, before)
}

// A copy is what was taken of a cluster, part by part.
type copied struct {
	of    *cluster
	to    *cluster
	parts []string
}

func (c *cluster) copies() *copied {
	c.Helper()
	return &copied{c, &cluster{servertest.NewPostgreSQL(c.TB)}, []string{"data", "wal", "side"}}
}

// copy copies a part, which may change meanwhile.
func (r *copied) copy(part string) {
	r.of.Helper()
	out, err := r.of.Command("/bin/cp", "-a", r.of.Dir+"/"+part, r.to.Dir+"/"+part).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if err != nil && !strings.Contains(line, "No such file or directory") { // deleted meanwhile
			r.of.Fatalf("copy %s: %v: %s", part, err, line)
		}
	}
}

// check restores the copies at another place, starts a server there and looks
// whether it is right.
func (r *copied) check(notes []writer.Note, load *bank.Bank, after, before bank.Moment) {
	c := r.to
	c.Helper()
	for _, n := range notes {
		path := strings.Replace(n.Path, r.of.Dir, c.Dir, 1)
		content := n.Content
		if filepath.Base(path) == "tablespace_map" {
			content = []byte(strings.ReplaceAll(string(content), r.of.Dir, c.Dir))
		}
		must(c, os.WriteFile(path, content, n.Mode))
		must(c, os.Chown(path, int(n.UID), int(n.GID)))
	}
	must(c, os.Remove(c.Data+"/postmaster.pid"))
	for link, to := range map[string]string{"pg_wal": "wal", "pg_tblspc/*": "side"} {
		found, err := filepath.Glob(c.Data + "/" + link)
		must(c, err)
		for _, f := range found {
			if _, err := os.Readlink(f); err != nil {
				continue // it is where it always is
			}
			must(c, os.Remove(f))
			if len(notes) == 0 || to == "wal" { // else tablespace_map says where it is
				c.Run("/bin/ln", "-s", c.Dir+"/"+to, f)
			}
		}
	}
	c.Serve()
	must(c, load.Check(c.soon(), c.DB, after, before))
	c.Run("pg_amcheck", "-h", c.Dir, "--all", "--install-missing", "--heapallindexed")
	c.Stop()
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for long, in vain")
		}
	}
}
