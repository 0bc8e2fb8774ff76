// Package snapshottest holds the checks that every snapshot provider passes.
// They ask through the file system only: what was there, what is shown, what
// is left. A provider's test calls Run with a Host that makes the provider and
// volumes for it; nothing here knows a technology by name. Where a provider
// cannot keep a promise it says so in Known, with the reason; a deviation that
// is none any more fails.
//
// The checks are tested themselves, with providers that are broken in one
// thing each.
package snapshottest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"slices"
	"testing"
	"time"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Host is where a provider works. Its functions are called in the checks'
// tests, also in children of the test process, so they must not depend on what
// the test did before Run.
type Host struct {
	// New makes a provider as a process of its own would.
	New func(testing.TB) snapshot.Provider

	// Volumes makes n volumes that the provider takes and that can be
	// written, with at least 200 MiB together.
	Volumes func(tb testing.TB, n int) []Volume

	// Folder makes a directory of a volume, which the checks then work in, a volume of
	// its own that is mounted there and that the provider takes along: it is a part.
	// Nil simply makes it, for providers that take nothing along.
	Folder func(tb testing.TB, path string)

	// Refused makes a volume that the provider cannot take.
	Refused func(testing.TB) volume.Volume

	// State describes whatever the provider might change on the host besides
	// mounts, loop devices and the volumes' content, which are looked at
	// anyway. Nil for nothing.
	State func(testing.TB, []Volume) string

	// LookAlike puts something that looks like the provider's own, but is
	// not, where the provider keeps things for v, as if it were of the set
	// id. It returns a function that says what became of it, "" if nothing.
	// Nil where there is no such place.
	LookAlike func(tb testing.TB, v Volume, id string) func() string

	// Ephemeral is for a provider of which nothing outlives the process, so
	// that there never are leftovers.
	Ephemeral bool

	// Guarded is for a provider whose guard takes away what a killed process has
	// left, at once and by itself.
	Guarded bool

	// Write makes a change that writers of the checks make, in a way that
	// the provider can hold up. Nil simply makes it.
	Write func(change func())

	// Points are fault points that every set passes, from Prepare to the
	// last Release. They are used in builds with the tag "faults".
	Points []string

	// Env is added to the environment of children.
	Env []string

	// Known has the reason for each check that must fail.
	Known map[string]string

	// Limit is how long one check may take, 4 minutes if it is 0: where programs of
	// the system do the work, in a virtual machine without acceleration, it takes
	// as many times longer.
	Limit time.Duration

	// Captures is how many snapshots are taken under running writers, 5 if
	// it is 0.
	Captures int
}

// A Volume is a volume and where it can be changed.
type Volume struct {
	Dir    string
	Volume volume.Volume
}

// A check is one promise.
type check struct {
	name string
	run  func(*C)
}

// checks lists all promises, by file.
func checks() []check {
	return slices.Concat(contentChecks(), changeChecks(), writerChecks(), lifeChecks(), deathChecks())
}

// limit is how long one check may take.
func (h Host) limit() time.Duration { return cmp.Or(h.Limit, 4*time.Minute) }

// C is a check at work.
type C struct {
	testing.TB
	host     Host
	ctx      context.Context
	released map[string]bool // snapshots, by the check itself
}

// Run runs all checks. It must be called by a test function directly, not by a
// subtest: children of the test process run the same function.
func Run(t *testing.T, h Host) {
	if inChild() {
		child(t, h)
		return
	}
	names := map[string]bool{}
	for _, k := range checks() {
		names[k.name] = true
		t.Run(k.name, func(t *testing.T) { runCheck(t, h, k) })
	}
	for name := range h.Known {
		if !names[name] {
			t.Errorf("there is no check %q to deviate from", name)
		}
	}
}

// RunCheck runs one check, for tests that need it in other circumstances.
func RunCheck(t *testing.T, h Host, name string) {
	for _, k := range checks() {
		if k.name == name {
			runCheck(t, h, k)
			return
		}
	}
	t.Fatalf("there is no check %q", name)
}

func runCheck(t *testing.T, h Host, k check) {
	reason, known := h.Known[k.name]
	if !known {
		k.on(t, h)
		return
	}
	failures := record(t, func(tb testing.TB) { k.on(tb, h) })
	if len(failures) == 0 {
		t.Errorf("passes, though it should deviate: %s", reason)
		return
	}
	t.Logf("deviates, as is known: %s\n%s", reason, failures[0])
}

// on runs the check, which takes no longer than the limit.
func (k check) on(tb testing.TB, h Host) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), h.limit())
	defer cancel()
	k.run(&C{tb, h, ctx, map[string]bool{}})
}

// must ends the check on an error.
func (c *C) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// isRoot tells whether what only root can do can be checked, too.
func (c *C) isRoot() bool { return os.Geteuid() == 0 }

// newID returns an id for a set.
func newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, since Go 1.24)
	return "test" + hex.EncodeToString(b[:])
}

// folder makes a directory that the provider takes along with what it lies in, be it a
// volume of its own.
func (c *C) folder(path string) {
	c.Helper()
	if c.host.Folder != nil {
		c.host.Folder(c, path)
		return
	}
	c.must(os.Mkdir(path, 0o755))
}

// all selects everything of the volumes.
func all(vs []Volume) []snapshot.Target {
	var ts []snapshot.Target
	for _, v := range vs {
		ts = append(ts, snapshot.Target{Volume: v.Volume, Paths: []string{"."}})
	}
	return ts
}

// prepare prepares a set, which is aborted at the end of the check if it still
// is there.
func (c *C) prepare(p snapshot.Provider, ts []snapshot.Target) snapshot.Pending {
	c.Helper()
	for _, t := range ts {
		c.must(p.Check(c.ctx, t.Volume))
	}
	pending, err := p.Prepare(c.ctx, newID(), ts)
	c.must(err)
	c.Cleanup(func() { c.undo("abort", pending.Abort) })
	return pending
}

// commit takes the snapshots of a set. They are released at the end of the
// check if they still are there.
func (c *C) commit(pending snapshot.Pending) []snapshot.Snapshot {
	c.Helper()
	snaps, err := c.tryCommit(pending)
	c.must(err)
	for _, s := range snaps {
		c.Cleanup(func() {
			if !c.released[s.ID()] {
				c.undo("release", s.Release)
			}
		})
	}
	return snaps
}

// tryCommit holds, commits and resumes, as a coordinator does.
func (c *C) tryCommit(pending snapshot.Pending) ([]snapshot.Snapshot, error) {
	err := pending.Hold(c.ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(c.ctx)
	}
	if rerr := pending.Resume(c.ctx); rerr != nil {
		c.Errorf("resume: %v", rerr)
	}
	return snaps, err
}

func (c *C) undo(what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f(ctx); err != nil {
		c.Errorf("%s: %v", what, err)
	}
}

// take takes everything of the volumes.
func (c *C) take(p snapshot.Provider, vs []Volume) []snapshot.Snapshot {
	c.Helper()
	return c.commit(c.prepare(p, all(vs)))
}

// release releases snapshots, which must succeed.
func (c *C) release(snaps []snapshot.Snapshot) {
	c.Helper()
	for _, s := range snaps {
		if err := s.Release(c.ctx); err != nil {
			c.Errorf("release %s: %v", s.ID(), err)
			continue
		}
		c.released[s.ID()] = true
	}
}
