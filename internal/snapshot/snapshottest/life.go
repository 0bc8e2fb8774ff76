package snapshottest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

func lifeChecks() []check {
	return []check{
		{"leaves-nothing", checkLeavesNothing},
		{"abort", checkAbort},
		{"abort-during-commit", checkAbortDuringCommit},
		{"two-sets", checkTwoSets},
		{"release-one-by-one", checkReleaseOneByOne},
		{"release-twice", checkReleaseTwice},
		{"open-reader", checkOpenReader},
		{"released-is-not-good", checkReleasedIsNotGood},
		{"refusal-has-code", checkRefusal},
		{"dead-context", checkDeadContext},
		{"same-id", checkSameID},
	}
}

// hostState is everything that a provider must leave as it was.
func (c *C) hostState(vs []Volume) string {
	c.Helper()
	var b strings.Builder
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	c.must(err)
	b.WriteString("mounts:\n")
	for line := range strings.Lines(string(mounts)) {
		// Other tests of this machine mount and unmount, too.
		for _, v := range vs {
			if strings.Contains(line, v.Volume.Source) || strings.Contains(line, filepath.Dir(v.Dir)) {
				b.WriteString(line)
				break
			}
		}
	}
	b.WriteString("loop devices:\n")
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		if file, err := os.ReadFile(l); err == nil && c.ours(string(file), vs) {
			b.WriteString(l + " " + string(file))
		}
	}
	if c.host.State != nil {
		b.WriteString("provider's own:\n" + c.host.State(c, vs))
	}
	return b.String()
}

// ours tells whether a file lies beside or in one of the volumes.
func (c *C) ours(path string, vs []Volume) bool {
	for _, v := range vs {
		if strings.HasPrefix(path, filepath.Dir(v.Dir)+"/") {
			return true
		}
	}
	return false
}

// unchanged fails when the host is not as it was.
func (c *C) unchanged(vs []Volume, before string) {
	c.Helper()
	if now := c.hostState(vs); now != before {
		c.Errorf("the host has changed. It is\n%s\nand was\n%s", now, before)
	}
}

// When a set is released nothing is left, and the volumes are as they were.
func checkLeavesNothing(c *C) {
	vs := c.host.Volumes(c, 2)
	c.fill(vs[0].Dir)
	content := c.describe(vs[0].Dir)
	before := c.hostState(vs)
	p := c.host.New(c)
	for range 2 {
		snaps := c.take(p, vs)
		c.show(snaps[0], ".")
		c.release(snaps)
		c.unchanged(vs, before)
	}
	c.same("volume", c.describe(vs[0].Dir), content)
	c.noLeftovers(p)
}

// noLeftovers fails when there are any.
func (c *C) noLeftovers(p snapshot.Provider) {
	c.Helper()
	left, err := p.Leftovers(c.ctx)
	if err != nil || len(left) > 0 {
		c.Errorf("leftovers: %v, %v", ids(left), err)
	}
}

func ids(snaps []snapshot.Snapshot) []string {
	var s []string
	for _, one := range snaps {
		s = append(s, one.ID())
	}
	return s
}

// Abort leaves nothing, once or twice, before Commit and after one that failed.
// After one that succeeded it does nothing.
func checkAbort(c *C) {
	vs := c.host.Volumes(c, 2)
	before := c.hostState(vs)
	p := c.host.New(c)
	pending := c.prepare(p, all(vs))
	c.must(pending.Abort(c.ctx))
	c.must(pending.Abort(c.ctx))
	c.unchanged(vs, before)

	pending = c.prepare(p, all(vs))
	dead, cancel := context.WithCancel(c.ctx)
	cancel()
	if snaps, err := pending.Commit(dead); err == nil {
		c.Errorf("Commit took %v with a context that was over", ids(snaps))
	}
	c.must(pending.Abort(c.ctx))
	c.unchanged(vs, before)

	pending = c.prepare(p, all(vs))
	snaps := c.commit(pending)
	c.must(pending.Abort(c.ctx))
	for _, s := range snaps {
		if err := s.Err(); err != nil {
			c.Errorf("after Abort: %v", err)
		}
		c.show(s, ".")
	}
	c.release(snaps)
	c.unchanged(vs, before)
}

// An Abort while Commit runs: either the snapshots are there, or nothing is.
func checkAbortDuringCommit(c *C) {
	vs := c.host.Volumes(c, 2)
	c.write(filepath.Join(vs[0].Dir, "file"), pattern(1<<20, 1))
	before := c.hostState(vs)
	p := c.host.New(c)
	for i := range 6 {
		pending := c.prepare(p, all(vs))
		aborted := make(chan error)
		go func() {
			time.Sleep(time.Duration(i*i) * 300 * time.Microsecond)
			aborted <- pending.Abort(c.ctx)
		}()
		snaps, err := c.tryCommit(pending)
		if aerr := <-aborted; aerr != nil {
			c.Errorf("abort: %v", aerr)
		}
		if err == nil {
			for _, s := range snaps {
				c.show(s, ".")
				if err := s.Err(); err != nil {
					c.Error(err)
				}
			}
			c.release(snaps)
		}
		c.unchanged(vs, before)
	}
}

// Two sets may be there at once, each with what was there when it was taken.
func checkTwoSets(c *C) {
	vs := c.host.Volumes(c, 2)
	before := c.hostState(vs)
	path := filepath.Join(vs[0].Dir, "file")
	p := c.host.New(c)
	c.write(path, []byte("first"))
	first := c.take(p, vs)
	c.write(path, []byte("second"))
	second := c.take(p, vs)
	c.write(path, []byte("third"))
	c.reads(first[0], "file", "first")
	c.reads(second[0], "file", "second")
	c.release(first)
	c.reads(second[0], "file", "second")
	if names, err := os.ReadDir(second[0].Root()); err != nil || len(names) > 2 {
		c.Errorf("the second shows %v, %v", names, err)
	}
	if err := second[0].Err(); err != nil {
		c.Error(err)
	}
	c.release(second)
	c.unchangedBut(vs, before, path)
}

// unchangedBut is unchanged, without a file.
func (c *C) unchangedBut(vs []Volume, before, path string) {
	c.Helper()
	c.must(os.Remove(path))
	c.unchanged(vs, before)
}

func (c *C) reads(s snapshot.Snapshot, name, want string) {
	c.Helper()
	b, err := os.ReadFile(s.Root() + "/" + name)
	if err != nil || string(b) != want {
		c.Errorf("%s: %s is %q, %v; want %q", s.ID(), name, b, err, want)
	}
}

// The snapshots of a set are released in any order, and one that is left stays
// good.
func checkReleaseOneByOne(c *C) {
	vs := c.host.Volumes(c, 3)
	before := c.hostState(vs)
	for _, v := range vs {
		c.write(filepath.Join(v.Dir, "file"), []byte("content"))
	}
	snaps := c.take(c.host.New(c), vs)
	for _, i := range []int{1, 2, 0} {
		c.reads(snaps[i], "file", "content")
		if err := snaps[i].Err(); err != nil {
			c.Error(err)
		}
		c.release(snaps[i : i+1])
	}
	for _, v := range vs {
		c.must(os.Remove(filepath.Join(v.Dir, "file")))
	}
	c.unchanged(vs, before)
}

// Release may be called twice.
func checkReleaseTwice(c *C) {
	vs := c.host.Volumes(c, 1)
	snaps := c.take(c.host.New(c), vs)
	c.release(snaps)
	c.release(snaps)
}

// A reader with an open file does not keep a snapshot from being released, and
// what it has open stays as it was, or fails.
func checkOpenReader(c *C) {
	vs := c.host.Volumes(c, 1)
	before := c.hostState(vs)
	path := filepath.Join(vs[0].Dir, "file")
	want := pattern(4<<20, 3)
	c.write(path, want)
	snaps := c.take(c.host.New(c), vs)
	f, err := os.Open(snaps[0].Root() + "/file")
	c.must(err)
	defer f.Close()
	d, err := os.Open(snaps[0].Root())
	c.must(err)
	defer d.Close()
	_, err = io.ReadFull(f, make([]byte, 1<<20))
	c.must(err)
	restDirectly := c.openDirectly(snaps[0], "file")
	c.write(path, []byte("changed"))
	c.release(snaps)
	if rest, err := restDirectly(); err == nil && string(rest) != string(want[1<<20:]) {
		c.Errorf("%d bytes were read directly after Release that are not those of the snapshot", len(rest))
	}
	rest, err := io.ReadAll(f)
	if err == nil && string(rest) != string(want[1<<20:]) {
		c.Errorf("%d bytes were read after Release that are not those of the snapshot", len(rest))
	}
	f.Close()
	d.Close()
	c.unchangedBut(vs, before, path)
}

// Who asks after Release is told that the snapshot is not good any more.
func checkReleasedIsNotGood(c *C) {
	vs := c.host.Volumes(c, 1)
	snaps := c.take(c.host.New(c), vs)
	if err := snaps[0].Err(); err != nil {
		c.Errorf("at first: %v", err)
	}
	c.release(snaps)
	if code := problem.CodeOf(snaps[0].Err()); code != problem.SnapshotLost {
		c.Errorf("after Release: %v, code %q", snaps[0].Err(), code)
	}
}

// A refusal has a code, and leaves nothing.
func checkRefusal(c *C) {
	p := c.host.New(c)
	vs := c.host.Volumes(c, 1)
	before := c.hostState(vs)
	refused := c.host.Refused(c)
	if err := p.Check(c.ctx, refused); problem.CodeOf(err) == problem.Uncatalogued || err == nil {
		c.Errorf("Check: %v, code %q", err, problem.CodeOf(err))
	}
	ts := append(all(vs), snapshot.Target{Volume: refused, Paths: []string{"."}})
	pending, err := p.Prepare(c.ctx, newID(), ts)
	if err == nil {
		c.must(pending.Abort(c.ctx))
	}
	if problem.CodeOf(err) == problem.Uncatalogued || err == nil {
		c.Errorf("Prepare: %v, code %q", err, problem.CodeOf(err))
	}
	c.unchanged(vs, before)
}

// A context that is over is refused, and does no harm.
func checkDeadContext(c *C) {
	vs := c.host.Volumes(c, 1)
	before := c.hostState(vs)
	p := c.host.New(c)
	dead, cancel := context.WithCancel(c.ctx)
	cancel()
	refused := func(what string, err error) {
		c.Helper()
		if !errors.Is(err, context.Canceled) {
			c.Errorf("%s with a context that is over: %v", what, err)
		}
	}
	refused("Check", p.Check(dead, vs[0].Volume))
	pending, err := p.Prepare(dead, newID(), all(vs))
	if err == nil {
		c.must(pending.Abort(c.ctx))
	}
	refused("Prepare", err)
	_, err = p.Leftovers(dead)
	refused("Leftovers", err)
	c.unchanged(vs, before)

	pending = c.prepare(p, all(vs))
	refused("Hold", pending.Hold(dead))
	c.must(pending.Resume(c.ctx))
	refused("Abort", pending.Abort(dead))
	snaps := c.commit(pending)
	refused("Release", snaps[0].Release(dead))
	if err := snaps[0].Err(); err != nil {
		c.Errorf("after a Release that was refused: %v", err)
	}
	c.release(snaps)
	c.unchanged(vs, before)
}

// Two sets cannot have one id, and the first does not suffer from the try.
func checkSameID(c *C) {
	vs := c.host.Volumes(c, 1)
	before := c.hostState(vs)
	p := c.host.New(c)
	id := newID()
	first, err := p.Prepare(c.ctx, id, all(vs))
	c.must(err)
	c.Cleanup(func() { c.undo("abort", first.Abort) })
	second, err := p.Prepare(c.ctx, id, all(vs))
	if err == nil {
		c.Errorf("two sets are called %s", id)
		c.must(second.Abort(c.ctx))
	} else if code := problem.CodeOf(err); code == problem.Uncatalogued {
		c.Errorf("%v has no code", err)
	}
	snaps := c.commit(first)
	c.show(snaps[0], ".")
	if err := snaps[0].Err(); err != nil {
		c.Error(err)
	}
	c.release(snaps)
	c.unchanged(vs, before)
}
