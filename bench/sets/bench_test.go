//go:build bench

// Package sets_test measures captures of whole sets, with an application, on
// scratch volumes, as root, and prints Markdown tables:
//
//	make bench-sets
//
// bench/README.md says what is measured and how.
package sets_test

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/writer/sqlite"
)

func TestMain(m *testing.M) {
	guard.Main()
	holder.Main()
	sqlite.Main()
	if os.Getenv(childVariable) != "" {
		child(os.Args[1:])
	}
	os.Exit(m.Run())
}

// TestBench measures everything, and prints the tables.
func TestBench(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("must run as root, to mount scratch volumes and to freeze them")
	}
	only, err := regexp.Compile(setting("ONLY", ""))
	if err != nil {
		t.Fatalf("STILLPOINT_BENCH_ONLY: %v", err)
	}
	captures, rounds := count(t, "CAPTURES", "100"), count(t, "ROUNDS", "5")
	var found table
	measured := false
	for _, kinds := range [][]string{{"ext4"}, {"xfs"}, {"ext4", "xfs", "btrfs", "ext4"}, {"ext4", "ext4", "ext4", "ext4"}} {
		if name := strings.Join(kinds, " "); only.MatchString(name) {
			measured = true
			t.Run(name, func(t *testing.T) { holds(newRig(t, kinds), captures, &found) })
		}
	}
	if len(found) > 0 {
		fmt.Println("\n" + found.String())
	}
	if only.MatchString("pgbench") {
		measured = true
		t.Run("pgbench", func(t *testing.T) { throughput(newDatabase(t), rounds) })
	}
	if !measured {
		t.Fatal("nothing was measured: STILLPOINT_BENCH_ONLY is to fit a set, as 'ext4 xfs', or pgbench")
	}
}

func setting(name, otherwise string) string {
	return cmp.Or(os.Getenv("STILLPOINT_BENCH_"+name), otherwise)
}

func count(t *testing.T, name, otherwise string) int {
	n, err := strconv.Atoi(setting(name, otherwise))
	if err != nil || n < 1 {
		t.Fatalf("STILLPOINT_BENCH_%s is to be a number from 1 on: %v", name, err)
	}
	return n
}
