package lvm

import (
	"testing"

	"stillpoint/internal/problem"
)

// What pools say (Linux 6.12), and whether there is room in them for a snapshot.
func TestRoom(t *testing.T) {
	for _, one := range []struct {
		name, state string
		roomy       bool
	}{
		{"new", "1 118/1024 787/32768 - rw discard_passdown queue_if_no_space - 256", true},
		{"the last that is enough", "1 10/1024 31784/32768 - rw discard_passdown queue_if_no_space - 256", true},
		{"data nearly full", "1 10/1024 31800/32768 - rw discard_passdown queue_if_no_space - 256", false},
		{"metadata nearly full", "1 970/1024 787/32768 - rw discard_passdown queue_if_no_space - 256", false},
		{"full", "1 10/1024 32768/32768 - out_of_data_space discard_passdown queue_if_no_space - 256", false},
		{"read-only", "1 10/1024 7/32768 - ro discard_passdown queue_if_no_space - 256", false},
		{"damaged", "1 10/1024 7/32768 - rw discard_passdown queue_if_no_space needs_check 256", false},
		{"failed", "Fail", false},
	} {
		p := pool{block: 64 << 10}
		if err := p.read(one.state); err != nil {
			t.Errorf("%s: %v", one.name, err)
			continue
		}
		err := p.roomy("vg/pool", 1)
		if one.roomy != (err == nil) || err != nil && problem.CodeOf(err) != problem.PoolFull {
			t.Errorf("%s: %v", one.name, err)
		}
	}
	for _, no := range []string{"", "1 2 3", "1 x/y 1/2 - rw", "Fail x"} {
		if err := new(pool).read(no); err == nil {
			t.Errorf("%q is understood", no)
		}
	}
	// Of a very large pool not as many percent.
	large := pool{block: 1 << 20, all: 100 << 20, used: 100<<20 - 20<<10, meta: 4 << 20}
	if err := large.roomy("vg/pool", 2); err != nil {
		t.Error(err)
	}
}
