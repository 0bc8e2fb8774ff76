package snapshottest

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/snapshot"
)

func writerChecks() []check {
	return []check{
		{"prefix", func(c *C) { checkPrefix(c, 1, durable) }},
		{"prefix-of-set", func(c *C) { checkPrefix(c, 3, durable) }},
		{"prefix-not-durable", func(c *C) { checkPrefix(c, 1, undurable) }},
	}
}

// A trace is what a writer's directory shows of its steps.
type trace struct {
	records     []int            // of the log, whole ones
	slots       map[string][]int // by file; -1 for a torn one
	current     int              // -1 when torn, 0 for none
	made        map[int]bool     // true when whole
	directories map[int]bool
}

const torn = -1

// readTrace reads a writer's directory below the root of a snapshot.
func readTrace(dir string) (*trace, error) {
	t := &trace{slots: map[string][]int{}, made: map[int]bool{}, directories: map[int]bool{}}
	log, err := os.ReadFile(dir + "/log")
	if err != nil {
		return nil, err
	}
	for ; len(log) >= recordSize; log = log[recordSize:] {
		t.records = append(t.records, number(log[:recordSize]))
	}
	for _, name := range []string{"slots", "direct", "mapped"} {
		b, err := os.ReadFile(dir + "/" + name)
		if err != nil || len(b) != slots*slotSize {
			return nil, fmt.Errorf("%s has %d bytes: %w", name, len(b), err)
		}
		for i := range slots {
			t.slots[name] = append(t.slots[name], number(b[i*slotSize:][:slotSize]))
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		t.name(dir, e.Name())
	}
	return t, nil
}

func (t *trace) name(dir, name string) {
	what, num, numbered := strings.Cut(name, "-")
	n, err := strconv.Atoi(num)
	switch {
	case name == "current":
		t.current = numberOf(dir+"/current", slotSize)
	case !numbered || err != nil:
	case what == "made":
		t.made[n] = numberOf(dir+"/"+name, slotSize) == n
	case what == "directory":
		t.directories[n] = numberOf(dir+"/"+name+"/file", recordSize) == n
	}
}

// number is what b is filled with, or torn.
func number(b []byte) int {
	n := binary.LittleEndian.Uint64(b)
	for i := 0; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != n {
			return torn
		}
	}
	return int(n)
}

func numberOf(path string, size int) int {
	b, err := os.ReadFile(path)
	if err != nil || len(b) != size {
		return torn
	}
	return number(b)
}

// last is the last step up to k of a kind, 0 for none.
func last(k, kind int) int {
	n := k - (k-kind+kinds)%kinds
	return max(n, 0)
}

// lastIn is the last step up to k that wrote to a slot, 0 for none.
func lastIn(k, kind, slot int) int {
	for n := last(k, kind); n > 0; n -= kinds {
		if int(slotOf(n)) == slot {
			return n
		}
	}
	return 0
}

// fits is nil when the trace shows the steps 1 to k, and of the step after,
// which may have been under way, at most its not yet visible part.
func (t *trace) fits(k int) error {
	for i, n := range t.records {
		if want := kinds * (i + 1); n != want && (n != torn || want != k+1) {
			return fmt.Errorf("record %d of the log is of step %d, not %d", i, n, want)
		}
	}
	whole := len(t.records)
	if whole > 0 && t.records[whole-1] == torn {
		whole--
	}
	if want := last(k, appendRecord) / kinds; whole != want {
		return fmt.Errorf("%d records in the log, not %d", whole, want)
	}
	for kind, name := range map[int]string{writeSlot: "slots", directSlot: "direct", mapSlot: "mapped"} {
		for i, n := range t.slots[name] {
			underWay := (k+1)%kinds == kind && int(slotOf(k+1)) == i
			if want := lastIn(k, kind, i); n != want && (!underWay || n != torn) {
				return fmt.Errorf("slot %d of %s is of step %d, not %d", i, name, n, want)
			}
		}
	}
	if want := last(k, replaceFile); t.current != want {
		return fmt.Errorf("the replaced file is of step %d, not %d", t.current, want)
	}
	if err := fitsNames("made", t.made, k, makeFile, removeFile); err != nil {
		return err
	}
	return fitsNames("directory", t.directories, k, makeDirectory, removeDirectory)
}

func fitsNames(what string, shown map[int]bool, k, makes, removes int) error {
	want := map[int]bool{}
	for n := last(k, makes); n > 0 && n+1+keep > last(k, removes); n -= kinds {
		want[n] = true
	}
	for n, whole := range shown {
		switch {
		case !want[n]:
			return fmt.Errorf("%s-%d should not be there", what, n)
		case !whole:
			return fmt.Errorf("%s-%d is torn", what, n)
		}
	}
	for n := range want {
		if _, ok := shown[n]; !ok {
			return fmt.Errorf("%s-%d is missing", what, n)
		}
	}
	return nil
}

// A window is when a Commit ran, by the writers' clock.
type window struct{ from, to uint64 }

// prefix finds out how many steps of a writer a snapshot shows: at least those
// that had ended when Commit began, at most those that had begun when it had
// returned.
func (w *writer) prefix(t *trace, in window) (int, error) {
	most, _ := w.history.stepsBefore(in.to)
	_, least := w.history.stepsBefore(in.from)
	var why []string
	for k := most; k >= least; k-- {
		err := t.fits(k)
		if err == nil {
			return k, nil
		}
		why = append(why, fmt.Sprintf("not steps 1 to %d: %v", k, err))
	}
	if len(why) > 12 {
		why = slices.Concat(why[:6], []string{"…"}, why[len(why)-6:])
	}
	return 0, fmt.Errorf("shows no prefix of between %d and %d steps:\n%s", least, most, strings.Join(why, "\n"))
}

// A cut is how many steps of a writer are in a snapshot.
type cut struct {
	*writer
	steps int
	taken time.Time
}

// consistent fails unless the writers of one instant stopped at one instant:
// when a step is shown, so is all that ended before it began.
func (c *C) consistent(cuts []cut) {
	c.Helper()
	for _, a := range cuts {
		began := a.history.beginning(a.steps)
		for _, b := range cuts {
			_, ended := b.history.stepsBefore(began)
			if b.taken.Equal(a.taken) && ended > b.steps {
				c.Errorf("step %d in %s is shown, and step %d in %s, which ended before it began, is not", a.steps, a.dir, ended, b.dir)
			}
		}
	}
}

// Under running writers a snapshot shows a prefix of what each of them did, and
// what is of one instant shows one cut through all.
func checkPrefix(c *C, volumes int, m mode) {
	captures := c.host.Captures
	if captures == 0 {
		captures = 5
	}
	vs := c.host.Volumes(c, volumes)
	t, stop := c.startTeam(vs, m)
	p := c.host.New(c)
	// On a slow device it takes more captures until each writer has made
	// every kind of step some times.
	single := 0
	i := 0
	for ; i < captures || t.least() < 4*kinds; i++ {
		time.Sleep(time.Duration(50+37*(i%5)) * time.Millisecond)
		if c.capture(t, p, vs) == 1 {
			single++
		}
		if c.Failed() || c.ctx.Err() != nil {
			c.Fatalf("in capture %d of %d, when the slowest writer had made %d steps", i+1, captures, t.least())
		}
	}
	stop()
	c.Logf("%d of %d captures were of one instant", single, i)
}

// least is how many steps the slowest writer has made.
func (t *team) least() int {
	least := math.MaxInt
	now := t.clock.Load() + 1
	for _, ws := range t.writers {
		for _, w := range ws {
			_, ended := w.history.stepsBefore(now)
			least = min(least, ended)
		}
	}
	return least
}

// capture takes one set and looks at it. It returns of how many instants it is.
func (c *C) capture(t *team, p snapshot.Provider, vs []Volume) int {
	c.Helper()
	pending := c.prepare(p, all(vs))
	in := window{from: t.clock.Add(1)}
	snaps, err := c.tryCommit(pending)
	in.to = t.clock.Add(1)
	c.must(err)
	defer c.release(snaps)
	var cuts []cut
	instants := map[time.Time]bool{}
	for v, s := range snaps {
		instants[s.Parts()[0].Taken] = true
		for i, w := range t.writers[v] {
			tr, err := readTrace(s.Root() + fmt.Sprint("/writer", i))
			if err != nil {
				c.Errorf("writer %d: %v", i, err)
				continue
			}
			n, err := w.prefix(tr, in)
			if err != nil {
				c.Errorf("writer %d on volume %d %v", i, v, err)
				continue
			}
			cuts = append(cuts, cut{w, n, s.Parts()[0].Taken})
		}
		if err := s.Err(); err != nil {
			c.Error(err)
		}
	}
	c.consistent(cuts)
	return len(instants)
}
