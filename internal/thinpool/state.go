package thinpool

import (
	"fmt"
	"strings"
)

// A State is how full a pool is.
type State struct {
	Used, All      uint64 // blocks of data
	MetaUsed, Meta uint64 // blocks of metadata
	Trouble        string // what is wrong with it; empty where nothing is
}

// Parse reads what a pool says of itself: TRANSACTION USED/ALL USED/ALL ROOT MODE …, of
// metadata and data (thin-provisioning.rst), or the one word Fail.
func Parse(state string) (s State, err error) {
	f := strings.Fields(state)
	if len(f) == 1 {
		s.Trouble = "it says " + f[0]
		return s, nil
	}
	if len(f) < 5 {
		return s, fmt.Errorf("it says %q", state)
	}
	if _, err := fmt.Sscanf(f[1]+" "+f[2], "%d/%d %d/%d", &s.MetaUsed, &s.Meta, &s.Used, &s.All); err != nil {
		return s, fmt.Errorf("it says %q: %w", state, err)
	}
	switch {
	case f[4] == "ro":
		s.Trouble = "it is read-only"
	case f[4] == "out_of_data_space":
		s.Trouble = "it is full"
	case strings.Contains(state, "needs_check"):
		s.Trouble = "its metadata need a check"
	}
	return s, nil
}

// How much of a pool is to stay free for the volumes that live in it.
const (
	DataReserve     = 3    // percent
	DataReserveMost = 8e9  // bytes, of a large pool
	MetaReserve     = 6    // percent
	MetaReserveMost = 64e6 // bytes
	MetaBlock       = 4096
)

// room is how much may be written to a pool by who could do without, of whose blocks
// each has so many bytes, or why nothing may: so many times the reserve must be there.
func (s State) room(block, times uint64) (bytes uint64, why string) {
	if s.Trouble != "" {
		return 0, s.Trouble
	}
	left, all := (s.All-s.Used)*block, s.All*block
	reserve := min(all/100*DataReserve, DataReserveMost)
	if left < times*reserve {
		return 0, fmt.Sprintf("it has %d MiB left of %d, which are for the volumes in it", left>>20, all>>20)
	}
	meta := (s.Meta - s.MetaUsed) * MetaBlock
	if meta < times*min(s.Meta*MetaBlock/100*MetaReserve, MetaReserveMost) {
		return 0, fmt.Sprintf("its metadata have %d KiB left of %d", meta>>10, s.Meta*MetaBlock>>10)
	}
	return left - reserve, ""
}
