//go:build bench

package cow_test

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// options are from the environment.
type options struct {
	rounds int
	only   *regexp.Regexp // of "part/file system"
	files  []int          // for how many the instant is measured
}

func readOptions(t *testing.T) options {
	var o options
	var err error
	if o.rounds, err = strconv.Atoi(setting("ROUNDS", "3")); err != nil || o.rounds < 1 {
		t.Fatalf("STILLPOINT_BENCH_ROUNDS is to be a number from 1 on: %v", err)
	}
	if o.only, err = regexp.Compile(setting("ONLY", "")); err != nil {
		t.Fatalf("STILLPOINT_BENCH_ONLY: %v", err)
	}
	for _, s := range strings.Split(setting("FILES", "1000,100000,1000000"), ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("STILLPOINT_BENCH_FILES is to be numbers with commas between, not %q", s)
		}
		o.files = append(o.files, n)
	}
	return o
}

func setting(name, otherwise string) string {
	return cmp.Or(os.Getenv("STILLPOINT_BENCH_"+name), otherwise)
}

// most is the largest number of files.
func (o options) most() int64 { return int64(slices.Max(o.files)) }
