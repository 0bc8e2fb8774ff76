package zfs

import (
	"strings"
	"testing"
	"time"
)

// The time at which a group was closed is found among those that the module remembers.
func TestClosed(t *testing.T) {
	const said = `27 0 0x01 3 336 11803429106 44721093381
txg      birth            state ndirty       nread        nwritten     reads    writes   otime        qtime        wtime        stime       
41       20000000000      C     512          0            1024         0        9        5000000001   2000         9000         1000000     
42       25000000001      S     512          0            0            0        0        250          3000         0            0           
43       25000000251      O     0            0            0            0        0        0            0            0            0           
`
	for group, want := range map[uint64]time.Duration{41: 25000000001, 42: 25000000251, 43: 0, 4: 0, 44: 0} {
		got, err := closed(strings.NewReader(said), group)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("group %d: %d, %v; want %d", group, got, err, want)
		}
	}
	if _, err := Closed("no such pool", 1); err == nil {
		t.Error("a pool that is not there")
	}
}
