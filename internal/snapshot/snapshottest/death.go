package snapshottest

import (
	"path/filepath"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

func deathChecks() []check {
	return []check{
		{"killed", checkKilled},
		{"killed-at-points", checkKilledAtPoints},
		{"exited", checkExited},
		{"guard", checkGuard},
		{"stopped", checkStopped},
		{"living", checkLiving},
		{"look-alike", checkLookAlike},
	}
}

// Killed at any step, a process leaves what the next one finds and removes,
// and the volumes as they were.
func checkKilled(c *C) {
	vs, before, content := c.scene()
	for _, s := range stages {
		p := c.startProcess(vs, "")
		p.runTo(c, s)
		p.killAll(c, vs)
		c.cleanUp(vs, before, content, s >= committed && s < released)
		if c.Failed() {
			c.Fatalf("killed when it was %s", s)
		}
	}
	// Between the stages, at moments that are not chosen. A guard and this process
	// then clean up side by side.
	for _, s := range []stage{started, held, shown} {
		for _, after := range []time.Duration{0, 200, 500, 1000, 2000, 3000, 5000, 10_000} {
			after *= time.Microsecond
			p := c.startProcess(vs, "")
			p.runTo(c, s)
			p.goOn()
			time.Sleep(after)
			p.kill(c)
			c.cleanUp(vs, before, content, false)
			if c.Failed() {
				c.Fatalf("killed %v after it was %s", after, s)
			}
		}
	}
}

// scene makes volumes with something in them.
func (c *C) scene() (vs []Volume, before string, content []manifest) {
	c.Helper()
	vs = c.host.Volumes(c, 2)
	c.fill(vs[0].Dir)
	c.write(filepath.Join(vs[1].Dir, "file"), pattern(2<<20, 1))
	for _, v := range vs {
		content = append(content, c.describe(v.Dir))
	}
	return vs, c.hostState(vs), content
}

// cleanUp does what a new process does first, and looks at what is left.
func (c *C) cleanUp(vs []Volume, before string, content []manifest, expect bool) {
	c.Helper()
	p := c.host.New(c)
	left, err := p.Leftovers(c.ctx)
	if err != nil {
		c.Errorf("look for leftovers: %v", err)
	}
	if again, err := p.Leftovers(c.ctx); err != nil || len(again) != len(left) && (expect || !c.host.Guarded) {
		c.Errorf("leftovers: %v, then %v, %v", ids(left), ids(again), err)
	}
	if expect && !c.host.Ephemeral && len(left) == 0 {
		c.Error("there are no leftovers")
	}
	if c.host.Ephemeral && len(left) > 0 {
		c.Errorf("there are leftovers: %v", ids(left))
	}
	for _, l := range left {
		if problem.CodeOf(l.Err()) != problem.SnapshotLost {
			c.Errorf("leftover %s is good: %v", l.ID(), l.Err())
		}
		for range 2 {
			if err := l.Release(c.ctx); err != nil {
				c.Errorf("release leftover %s: %v", l.ID(), err)
			}
		}
	}
	if c.host.Guarded && !expect { // a guard may be at work, too
		c.cleanedUp(vs, before, content)
		return
	}
	c.noLeftovers(p)
	c.unchanged(vs, before)
	for i, v := range vs {
		c.same("volume", c.describe(v.Dir), content[i])
	}
}

// In builds with fault points a process is killed at each one, exactly.
func checkKilledAtPoints(c *C) {
	if !withFaults {
		c.Skip("skipped: built without the tag faults, so there are no fault points")
	}
	if len(c.host.Points) == 0 {
		c.Skip("skipped: the provider has no fault points, and need not have any")
	}
	vs, before, content := c.scene()
	for _, point := range c.host.Points {
		p := c.startProcess(vs, "kill:"+point)
		if err := p.runToEnd(); err == nil {
			c.Errorf("%s was not reached", point)
		}
		if c.host.Guarded {
			c.cleanedUp(vs, before, content)
		} else {
			c.cleanUp(vs, before, content, false)
		}
		if c.Failed() {
			c.Fatalf("killed at %s", point)
		}
	}
}

// What a process leaves that just ends is found, too.
func checkExited(c *C) {
	vs, before, content := c.scene()
	p := c.startProcess(vs, "")
	p.runTo(c, shown)
	p.killGuards(c)
	p.exit(c)
	c.cleanUp(vs, before, content, true)
	if c.host.Guarded {
		p := c.startProcess(vs, "")
		p.runTo(c, shown)
		p.exit(c)
		c.cleanedUp(vs, before, content)
	}
}

// What a living process holds is no leftover, of this process or another.
func checkLiving(c *C) {
	vs, before, _ := c.scene()
	other := c.startProcess(vs, "")
	for s := started; s <= shown; s++ {
		other.runTo(c, s)
		c.noLeftovers(c.host.New(c))
	}
	p := c.host.New(c)
	snaps := c.take(p, vs)
	c.noLeftovers(c.host.New(c))
	c.noLeftovers(p)
	c.release(snaps)
	if err := other.runToEnd(); err != nil {
		c.Errorf("the other process: %v", err)
	}
	c.unchanged(vs, before)
}

// What only looks like the provider's own is reported each time and never
// touched, alone or beside a set that died.
func checkLookAlike(c *C) {
	if c.host.LookAlike == nil {
		c.Skip("skipped: the provider keeps nothing at a place that could be mistaken")
	}
	vs := c.host.Volumes(c, 2)
	changed := c.host.LookAlike(c, vs[0], newID())
	look := func(when string) {
		c.Helper()
		if what := changed(); what != "" {
			c.Errorf("%s: %s", when, what)
		}
	}
	p := c.host.New(c)
	reported := func(when string) []snapshot.Snapshot {
		c.Helper()
		left, err := p.Leftovers(c.ctx)
		if !problem.Is(err, problem.LeftoverForeign) {
			c.Errorf("%s: it is not reported: %v", when, err)
		}
		return left
	}
	if left := reported("alone"); len(left) > 0 {
		c.Errorf("alone: %v are leftovers", ids(left))
	}
	snaps := c.take(p, vs)
	look("beside a set")
	c.release(snaps)
	look("after a set")

	other := c.startProcess(vs, "")
	other.runTo(c, shown)
	other.killAll(c, vs)
	left := reported("beside a leftover")
	if len(left) == 0 {
		c.Error("beside it no leftover is found")
	}
	for _, l := range left {
		c.must(l.Release(c.ctx))
	}
	look("after a leftover")
	if left := reported("after a leftover"); len(left) > 0 {
		c.Errorf("in the end %v are left", ids(left))
	}
	look("in the end")

	// Within what a dead process left.
	other = c.startProcess(vs, "")
	other.runTo(c, shown)
	other.killAll(c, vs)
	changed = c.host.LookAlike(c, vs[0], other.id)
	left, _ = p.Leftovers(c.ctx)
	for _, l := range left {
		_ = l.Release(c.ctx) // may say that there is something foreign
	}
	look("within a leftover")
	_, err := p.Leftovers(c.ctx)
	if !problem.Is(err, problem.LeftoverForeign) && !anyForeign(c, left) {
		c.Errorf("within a leftover it is not reported: %v", err)
	}
}

// anyForeign tells whether a Release fails since something is not ours.
func anyForeign(c *C, left []snapshot.Snapshot) bool {
	for _, l := range left {
		if problem.Is(l.Release(c.ctx), problem.LeftoverForeign) {
			return true
		}
	}
	return false
}
