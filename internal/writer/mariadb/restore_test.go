package mariadb

import (
	"context"
	"testing"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/writertest/bank"
)

// What is copied while the server rests recovers to exactly what was
// committed, and is sound; so are tables that know no transactions.
func TestRestore(t *testing.T) {
	s := start(t, "--log-bin=bin", "--sync-binlog=0")
	must(t, bank.Found(s.soon(), s.Open("root", "d"), "ENGINE=InnoDB"))
	for _, engine := range []string{"Aria", "MyISAM"} {
		s.Must("CREATE TABLE d." + engine + " (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(100), KEY (b)) ENGINE=" + engine)
	}
	load := bank.Open(s.Open("root", "d"), 4)
	var made int
	for range 3 {
		waitFor(t, func() bool { return load.Made() > made+100 })
		p, err := s.instance(Options{}).Prepare(s.soon(), writer.Need{OneInstant: true, Window: time.Minute})
		must(t, err)
		// Each is written to until it waits.
		rows := s.writes()
		after := load.Now()
		must(t, p.Freeze(s.soon()))
		written := rows()
		resume := s.Pause()
		r := &mariadbd{servertest.NewMariaDB(t, s.Args...)}
		r.Run("/bin/cp", "-a", s.Data, r.Data)
		resume()
		before := load.Now()
		_, err = p.Thaw(s.soon())
		must(t, err)
		r.Serve()
		must(t, load.Check(s.soon(), r.Open("root", "d"), after, before))
		r.sound()
		for engine, n := range written {
			var has int
			must(t, r.DB.QueryRow("SELECT count(*) FROM d."+engine).Scan(&has))
			if has < n {
				t.Errorf("%s has %d rows, and %d were acknowledged", engine, has, n)
			}
		}
		r.Stop()
		made = load.Made()
	}
	must(t, load.Close())
}

// writes adds rows to tables without transactions. What it returns tells how
// many each had when it is called; the one under way may go on.
func (s *mariadbd) writes() func() map[string]int {
	s.Helper()
	type row struct {
		engine string
		n      int
		err    error
	}
	rows := make(chan row)
	stop := make(chan struct{})
	for _, engine := range []string{"Aria", "MyISAM"} {
		go func() {
			for {
				ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
				r, err := s.DB.ExecContext(ctx, "INSERT INTO d."+engine+" (b) VALUES (UUID())")
				cancel()
				var n int64
				if err == nil {
					n, err = r.LastInsertId()
				}
				select {
				case rows <- row{engine, int(n), err}:
				case <-stop:
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	last := map[string]int{}
	for last["Aria"] == 0 || last["MyISAM"] == 0 { // prepared is not at rest
		r := <-rows
		must(s, r.err)
		last[r.engine] = r.n
	}
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for {
			select {
			case r := <-rows:
				if r.err != nil {
					s.Error(r.err)
					continue
				}
				last[r.engine] = r.n
			case <-stop:
				return
			}
		}
	}()
	return func() map[string]int { close(stop); <-collected; return last }
}

// sound looks at each table, as it is, whether it is good and was closed well.
func (s *mariadbd) sound() {
	s.Helper()
	for _, table := range []string{"accounts", "transfers", "written", "Aria", "MyISAM"} {
		rows, err := s.DB.Query("CHECK TABLE d." + table + " EXTENDED")
		must(s, err)
		for rows.Next() {
			var name, op, kind, text string
			must(s, rows.Scan(&name, &op, &kind, &text))
			if kind != "status" || text != "OK" {
				s.Errorf("%s: %s: %s", name, kind, text)
			}
		}
		must(s, rows.Err())
		rows.Close()
	}
}
