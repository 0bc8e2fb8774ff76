package btrfs

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/btrfs"
)

// Many subvolumes are taken in batches: few threads, and no lack of space.
func TestManyBatches(t *testing.T) {
	const n = 1000
	d := disk{scratch.New(t, "btrfs", scratch.GiB), t}
	d.create("@")
	dir, err := os.Open(d.in("@"))
	must(t, err)
	defer dir.Close()
	for i := range n {
		must(t, btrfs.Create(dir, fmt.Sprint("n", i)))
	}
	began := time.Now()
	s := take(t, of(d.mounted("@"), "."))[0]
	instants := map[time.Time]bool{}
	for _, p := range s.Parts() {
		instants[p.Taken] = true
	}
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	var threads int
	_, rest, _ := strings.Cut(string(status), "Threads:")
	_, err = fmt.Sscan(rest, &threads)
	must(t, err)
	t.Logf("%d parts of %d instants, %d threads, %v", len(s.Parts()), len(instants), threads, time.Since(began))
	if len(s.Parts()) != n+1 || len(s.Gaps()) > 0 {
		t.Errorf("%d parts and %d gaps", len(s.Parts()), len(s.Gaps()))
	}
	if threads > 200 {
		t.Errorf("%d threads", threads)
	}
}
