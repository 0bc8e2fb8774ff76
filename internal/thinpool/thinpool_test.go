package thinpool

import (
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/volume"
)

// What a pool says (Linux 6.12), and what there is for who could do without.
func TestState(t *testing.T) {
	const mib = 1 << 20
	for _, one := range []struct {
		name, state string
		room        uint64 // MiB
		why         string
	}{
		{"half full", "1 118/1024 16384/32768 - rw discard_passdown queue_if_no_space - 256", 962, ""},
		{"nearly full", "1 118/1024 30900/32768 - rw discard_passdown queue_if_no_space - 256", 0, "116 MiB left of 2048"},
		{"metadata nearly full", "1 920/1024 787/32768 - rw discard_passdown queue_if_no_space - 256", 0, "metadata"},
		{"full", "1 10/1024 32768/32768 - out_of_data_space discard_passdown queue_if_no_space - 256", 0, "full"},
		{"read-only", "1 10/1024 7/32768 - ro discard_passdown queue_if_no_space - 256", 0, "read-only"},
		{"damaged", "1 10/1024 7/32768 - rw discard_passdown queue_if_no_space needs_check 256", 0, "check"},
		{"failed", "Fail", 0, "Fail"},
	} {
		s, err := Parse(one.state)
		if err != nil {
			t.Errorf("%s: %v", one.name, err)
			continue
		}
		room, why := s.room(64<<10, 2)
		if room/mib != one.room || !strings.Contains(why, one.why) || (why == "") != (one.why == "") {
			t.Errorf("%s: %d MiB, %q", one.name, room/mib, why)
		}
	}
	if s, _ := Parse("1 118/1024 30900/32768 - rw discard_passdown queue_if_no_space - 256"); true {
		if room, why := s.room(64<<10, 1); room/mib != 55 || why != "" { // of who has begun already
			t.Errorf("%d MiB, %q", room/mib, why)
		}
	}
	for _, no := range []string{"", "1 2 3", "1 x/y 1/2 - rw", "Fail x"} {
		if _, err := Parse(no); err == nil {
			t.Errorf("%q is understood", no)
		}
	}
}

// A volume has no more room than the fullest pool that it lies in; others are not
// concerned, and a host without pools is not asked.
func TestBounded(t *testing.T) {
	on := func(free uint64, devices ...string) volume.Volume {
		v := volume.Volume{ID: volume.ID(strings.Join(devices, "+")), Free: free}
		for _, d := range devices {
			v.Stack = append(v.Stack, volume.Device{DMName: d, Number: d})
		}
		return v
	}
	all := []volume.Volume{on(100, "vg-root"), on(100, "vg-a", "vg-one-tpool"), on(20, "vg-b", "vg-one-tpool"), on(100, "vg-c", "vg-one-tpool", "vg-two-tpool")}
	bounded, short := boundedBy(all, func(numbers []string) map[string]answer {
		if !slices.Equal(numbers, []string{"vg-one-tpool", "vg-one-tpool", "vg-one-tpool", "vg-two-tpool"}) {
			t.Errorf("asked for %q", numbers)
		}
		return map[string]answer{"vg-one-tpool": {room: 50}, "vg-two-tpool": {why: "it is full"}}
	})
	for i, want := range []uint64{100, 50, 20, 0} {
		if bounded[i].Free != want {
			t.Errorf("%s: %d, want %d", bounded[i].ID, bounded[i].Free, want)
		}
	}
	if len(short) != 1 || !strings.Contains(short[all[3].ID], "it is full") || all[1].Free != 100 {
		t.Errorf("%v, and before: %+v", short, all)
	}
	boundedBy(all[:1], func([]string) map[string]answer {
		t.Error("a host without pools was asked")
		return nil
	})
}
