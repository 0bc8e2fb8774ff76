package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"stillpoint/internal/job"
	"stillpoint/internal/scratch"
)

// A round puts a number into a file on each volume in turn, and then into a
// database on the first one.
type round struct {
	files []*os.File
	db    *sql.DB
	done  atomic.Int64
	stop  chan struct{}
	ended chan error
}

// rounds are made until the test ends.
func rounds(t *testing.T, dirs []string) *round {
	r := &round{stop: make(chan struct{}), ended: make(chan error, 1)}
	for _, dir := range dirs {
		f, err := os.Create(filepath.Join(dir, "counter"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		r.files = append(r.files, f)
	}
	var err error
	if r.db, err = sql.Open("sqlite", "file:"+filepath.Join(dirs[0], "counter.db")+"?_pragma=busy_timeout(30000)"); err != nil {
		t.Fatal(err)
	}
	r.db.SetMaxOpenConns(1)
	if _, err := r.db.Exec("CREATE TABLE counter (n INTEGER); INSERT INTO counter VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.files {
		if err := number(f, 0); err != nil {
			t.Fatal(err)
		}
	}
	go func() { r.ended <- r.run() }()
	t.Cleanup(func() {
		close(r.stop)
		if err := <-r.ended; err != nil {
			t.Errorf("round %d: %v", r.done.Load()+1, err)
		}
		r.db.Close()
	})
	return r
}

func (r *round) run() error {
	for n := int64(1); ; n++ {
		select {
		case <-r.stop:
			return nil
		default:
		}
		for _, f := range r.files {
			if err := number(f, n); err != nil {
				return err
			}
		}
		if _, err := r.db.Exec("UPDATE counter SET n = ?", n); err != nil {
			return err
		}
		r.done.Store(n)
	}
}

func number(f *os.File, n int64) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%020d\n", n), 0)
	return err
}

// numbersIn are the numbers of a restored set, in the order in which they were
// written.
func numbersIn(t *testing.T, root string, dirs []string) (all []int64) {
	t.Helper()
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(root, dir, "counter"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	if _, err := os.Stat(filepath.Join(root, dirs[0], "counter.db-journal")); err == nil {
		t.Error("there is a hot journal")
	}
	db, err := sql.Open("sqlite", filepath.Join(root, dirs[0], "counter.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int64
	if err := db.QueryRow("SELECT n FROM counter").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return append(all, n)
}

// TestSet takes backups of several volumes of different file systems while a
// program writes to all of them in turn. At one instant no number is larger than
// one that is written before it, and the first and the last differ by the round
// that was under way. STILLPOINT_TEST_CAPTURES says how many backups to take.
func TestSet(t *testing.T) {
	captures := 3
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_CAPTURES")); err == nil {
		captures = n
	}
	for _, kinds := range [][]string{{"ext4", "xfs"}, {"ext4", "btrfs", "xfs", "ext4"}} {
		t.Run(strings.Join(kinds, " "), func(t *testing.T) {
			p := newProgram(t)
			dirs := volumesOf(t, p, kinds)
			r := rounds(t, dirs)
			var longest, rested time.Duration
			for i := range captures {
				before := r.done.Load()
				rep := p.report(append([]string{"backup", "--require", "one-instant", "--require", "application", "--json"}, dirs...)...)
				if !rep.OneInstant || rep.Skew != 0 || rep.Level != job.Application || len(rep.Applications) != 1 {
					t.Fatalf("backup %d: %+v", i, rep)
				}
				timelineOf(t, rep)
				if file := os.Getenv("STILLPOINT_TEST_PAGE"); file != "" { // to look at
					p.must("job", "show", rep.Job, "--report", "html="+file)
				}
				for _, v := range rep.Volumes {
					longest = max(longest, time.Duration(v.Hold))
				}
				rested = max(rested, time.Duration(rep.Applications[0].Rested))
				got := numbersIn(t, p.restored(dirs), dirs)
				for k := 1; k < len(got); k++ {
					if got[k] > got[k-1] {
						t.Fatalf("backup %d shows %v", i, got)
					}
				}
				if got[0]-got[len(got)-1] > 1 || got[0] < before {
					t.Fatalf("backup %d shows %v, and there were %d rounds before", i, got, before)
				}
			}
			t.Logf("%d backups, %d rounds; writes held for %v at most, the database at rest for %v at most", captures, r.done.Load(), longest, rested)
			if left := p.left(); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
}

// timelineOf fails unless the report tells when each volume was taken, and that
// the database was at rest then.
func timelineOf(t *testing.T, rep job.Report) {
	t.Helper()
	last := 0
	for _, s := range rep.Timeline {
		last = max(last, s.Capture)
	}
	find := func(step, volume, application string) (of job.Span) {
		t.Helper()
		i := slices.IndexFunc(rep.Timeline, func(s job.Span) bool {
			return s.Capture == last && s.Step == step && s.Application == application && (volume == "" || slices.Contains(s.Volumes, volume))
		})
		if i < 0 {
			t.Fatalf("no %s of %s%s in %+v", step, volume, application, rep.Timeline)
		}
		return rep.Timeline[i]
	}
	rest := find("rest", "", rep.Applications[0].ID)
	for _, v := range rep.Volumes {
		hold, commit, resume := find("hold", v.ID, ""), find("commit", v.ID, ""), find("resume", v.ID, "")
		if hold.At < rest.At || commit.At < hold.End() || resume.At < commit.End() || commit.End() > rest.End() || v.Hold > resume.End()-hold.At {
			t.Errorf("%s was held for %v; hold %+v, commit %+v, resume %+v, rest %+v", v.ID, time.Duration(v.Hold), hold, commit, resume, rest)
		}
	}
}

// TestSetOneAtATime takes the same one volume after the other, and says so.
func TestSetOneAtATime(t *testing.T) {
	p := newProgram(t)
	dirs := volumesOf(t, p, []string{"ext4", "btrfs", "xfs"})
	rounds(t, dirs)
	rep := p.report(append([]string{"backup", "--one-at-a-time", "--json"}, dirs...)...)
	if rep.OneInstant || rep.Skew == 0 || len(rep.Volumes) != 3 || rep.Status != job.Complete {
		t.Errorf("%+v", rep)
	}
	numbersIn(t, p.restored(dirs), dirs)
	p.exits(2, append([]string{"backup", "--one-at-a-time", "--require", "one-instant"}, dirs...)...)
}

func volumesOf(t *testing.T, p *program, kinds []string) (dirs []string) {
	for _, fs := range kinds {
		if fs == "btrfs" {
			dirs = append(dirs, p.vol.Dir)
			continue
		}
		dirs = append(dirs, scratch.New(t, fs, 400*scratch.MiB).Dir)
	}
	return dirs
}

// report runs a backup and returns what it says.
func (p *program) report(args ...string) (rep job.Report) {
	p.t.Helper()
	c := p.command(nil, args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		p.t.Fatalf("stillpoint %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if err := json.Unmarshal(out, &rep); err != nil {
		p.t.Fatal(err)
	}
	return rep
}

// restored restores the latest backup, and returns where.
func (p *program) restored(dirs []string) string {
	p.t.Helper()
	to := filepath.Join(p.t.TempDir(), "out")
	for _, dir := range dirs {
		p.must("restore", "latest:"+dir, "--to", to)
	}
	return to
}
