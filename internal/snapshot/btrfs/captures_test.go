package btrfs

import (
	"testing"

	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/snapshottest"
)

// Thirty captures under running writers, of one volume and of three.
func TestThirtyCaptures(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: takes half a minute, and -short was asked for")
	}
	scratch.NeedRoot(t)
	h := suiteHost()
	h.Captures = 30
	for _, name := range []string{"prefix", "prefix-of-set"} {
		t.Run(name, func(t *testing.T) { snapshottest.RunCheck(t, h, name) })
	}
}

// Mounted with flushoncommit a btrfs keeps the order also of writes that were
// not made durable.
func TestFlushOnCommit(t *testing.T) {
	scratch.NeedRoot(t)
	h := suiteHost(scratch.MountOptions("flushoncommit"))
	h.Known = nil
	snapshottest.RunCheck(t, h, "prefix-not-durable")
}
