package zfs

import (
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
)

// Of a small pool 3 % are to be free, of a large one 8 GB.
func TestEnough(t *testing.T) {
	const gb = 1_000_000_000
	for _, test := range []struct {
		used, available uint64
		want            problem.Code
	}{
		{0, gb, ""},
		{96 * gb, 4 * gb, ""},
		{98 * gb, 2 * gb, problem.SnapshotFull},
		{9_991 * gb, 9 * gb, ""},
		{9_993 * gb, 7 * gb, problem.SnapshotFull},
		{100 * gb, 0, problem.SnapshotFull},
	} {
		err := enough("tank", zfs.Stats{Used: test.used, Available: test.available})
		if (err == nil) != (test.want == "") || err != nil && problem.CodeOf(err) != test.want {
			t.Errorf("%d of %d: %v", test.available, test.used+test.available, err)
		}
	}
}
