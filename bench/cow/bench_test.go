//go:build bench

// Package cow_test measures the copy-on-write provider on scratch volumes, as
// root, and prints one Markdown table:
//
//	make bench-cow
//
// bench/README.md says what is measured and how.
package cow_test

import (
	"os"
	"testing"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/scratch"
)

func TestMain(m *testing.M) {
	guard.Main()
	holder.Main()
	if os.Getenv(childVariable) != "" {
		child(os.Args[1:])
	}
	os.Exit(m.Run())
}

// TestBench measures everything, on both file systems, and prints the table.
func TestBench(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("must run as root, to mount scratch volumes and to freeze them")
	}
	o := readOptions(t)
	var found results
	for _, p := range []struct {
		name string
		size int64 // of the volume
		run  func(r *rig)
	}{
		{"instant", 2*scratch.GiB + o.most()*(10<<10), instant},
		{"access", 1 * scratch.GiB, accesses},
		{"cache", 1 * scratch.GiB, cacheUse},
		{"fio", 1 * scratch.GiB, fio},
		{"pgbench", 2 * scratch.GiB, pgbench},
		{"backup", 2 * scratch.GiB, backups},
	} {
		for _, fs := range fileSystems {
			name := p.name + "/" + fs
			if !o.only.MatchString(name) {
				continue
			}
			t.Run(name, func(t *testing.T) { p.run(newRig(t, &found, o, fs, p.size)) })
		}
	}
	if len(found.rows) == 0 {
		t.Fatal("nothing was measured: STILLPOINT_BENCH_ONLY is to fit a part and a file system, as fio/ext4")
	}
	if err := found.print(os.Stdout); err != nil {
		t.Fatal(err)
	}
}

var fileSystems = []string{"ext4", "xfs"}
