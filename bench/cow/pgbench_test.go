//go:build bench

package cow_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// pgbench measures the transactions of a database that lies on the volume. On
// both sides the server is started anew, so that its files are opened with the
// filter there or without.
func pgbench(r *rig) {
	d := newDatabase(r)
	r.eachRound(func() {
		r.underLoad(load{"pgbench, 4 clients", "1/s", func() func() []sample {
			stop := d.serve()
			d.run("psql", "-qc", "CHECKPOINT")
			prefix := filepath.Join(d.logs, "round")
			c := d.command("pgbench", "--no-vacuum", "--client=4", "--time="+strconv.Itoa(int(loadTime.Seconds())), "--log", "--log-prefix="+prefix)
			said := output(c)
			if err := c.Start(); err != nil {
				stop()
				r.Fatal(err)
			}
			return func() []sample {
				err := c.Wait()
				stop()
				if err != nil {
					r.Fatalf("pgbench: %v: %s", err, said)
				}
				log := fmt.Sprintf("%s.%d", prefix, c.Process.Pid)
				defer os.Remove(log)
				return r.pgbenchLog(log)
			}
		}})
	})
}

// pgbenchLog reads a line for each transaction: client, number, time taken,
// script, and when it ended in seconds and microseconds (pgbench(1), "Per-Transaction Logging").
func (r *rig) pgbenchLog(path string) (all []sample) {
	r.Helper()
	f, err := os.Open(path)
	r.must(err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var client, number, took, script, seconds, micros int64
		_, err := fmt.Sscan(lines.Text(), &client, &number, &took, &script, &seconds, &micros)
		r.must(err)
		all = append(all, sample{time.Unix(seconds, micros*1000), 1})
	}
	r.must(lines.Err())
	return all
}
