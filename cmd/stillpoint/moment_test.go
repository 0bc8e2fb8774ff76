package main

import (
	"path/filepath"
	"testing"

	"stillpoint/internal/snapshot/snapshottest"
)

// TestOneMoment is promise 1: fifty backups in a row of a directory in which
// writers never rest, and each of them, restored, is of one moment.
func TestOneMoment(t *testing.T) {
	captures := 50
	if testing.Short() {
		captures = 5
	}
	p := newProgram(t)
	b := snapshottest.StartBusy(t, p.vol.Dir)
	for i := range captures {
		from := b.Now()
		p.must("backup", p.vol.Dir)
		to := b.Now()
		out := filepath.Join(t.TempDir(), "out")
		p.must("restore", "latest:"+p.vol.Dir, "--to", out)
		b.Check(filepath.Join(out, p.vol.Dir), from, to)
		if t.Failed() {
			t.Fatalf("backup %d of %d", i+1, captures)
		}
	}
	b.Stop()
	if left := p.left(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	p.must("verify", "--read-data")
}
