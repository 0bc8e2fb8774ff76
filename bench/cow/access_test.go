//go:build bench

package cow_test

import (
	"context"
	"fmt"
	"time"

	"stillpoint/internal/snapshot"
)

const (
	accessSize = 256 << 20
	many       = 200_000 // accesses that make no events
	some       = 4_000   // that do, and are less than make the file one to be saved whole
)

// accesses measures what one cached access of 4 KiB costs without a filter and
// in each state that it can be in.
func accesses(r *rig) {
	path := r.file("file", accessSize)
	r.eachRound(func() {
		r.inTurn(func() { r.bothKinds(path, many, without, "idle", "armed, saved", "armed, not saved") },
			func() { r.watched(func() { r.bothKinds(path, many, with, "idle") }) },
			func() { r.withSnapshot(func() { r.saveWhole(path); r.bothKinds(path, many, with, "armed, saved") }) },
			func() { r.notSaved(path) })
	})
}

func (r *rig) withSnapshot(do func()) {
	r.Helper()
	r.watched(func() { r.held(r.prepare("."), func(snapshot.Snapshot) { do() }) })
}

// notSaved is measured with a snapshot each, for reads count towards saving, too.
func (r *rig) notSaved(path string) {
	for _, kind := range kinds {
		r.withSnapshot(func() { r.cost(kind, path, some, with, "armed, not saved") })
	}
}

var kinds = []string{"write", "read"}

func (r *rig) bothKinds(path string, n, which int, states ...string) {
	for _, kind := range kinds {
		r.cost(kind, path, n, which, states...)
	}
}

// cost measures one kind of access, for these lines of the table.
func (r *rig) cost(kind, path string, n, which int, states ...string) {
	r.Helper()
	r.sync()
	ns := r.access(kind, path, n)
	for _, state := range states {
		r.note(measure{name: fmt.Sprintf("cached 4 KiB %s, %s", kind, state), unit: "ns"}, which, ns)
	}
}

// saveWhole writes to a file until that makes no more events.
func (r *rig) saveWhole(path string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	for before := int64(-1); r.events() != before; {
		if ctx.Err() != nil {
			r.Fatal("the file makes events still")
		}
		r.access("write", path, 2*some)
		before = r.events()
		r.access("write", path, 100)
	}
}
