// Package thinpool knows how much room is left in the thin pools of LVM. A volume that
// lies in one does not tell: its file system may have more free than its pool, and who
// fills a pool costs all volumes in it their writes.
package thinpool

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Bounded returns volumes whose free space is no more than the pools below them have
// for others, and why nothing is to be written to some of them. A host without such
// pools is not asked. It reads no disk and waits for nothing.
func Bounded(all []volume.Volume) (bounded []volume.Volume, short map[volume.ID]string) {
	return boundedBy(all, func(numbers []string) map[string]answer { return ask(numbers, 2) }) // as for a snapshot in it
}

func boundedBy(all []volume.Volume, ask func(numbers []string) map[string]answer) (bounded []volume.Volume, short map[volume.ID]string) {
	bounded, short = slices.Clone(all), map[volume.ID]string{}
	var numbers []string
	for _, v := range all {
		numbers = append(numbers, Of(v)...)
	}
	if len(numbers) == 0 {
		return bounded, short
	}
	answers := ask(numbers)
	for i := range bounded {
		v := &bounded[i]
		for _, n := range Of(*v) {
			a := answers[n]
			v.Free = min(v.Free, a.room)
			if a.why != "" {
				short[v.ID] = notFilled + a.why
			}
		}
	}
	return bounded, short
}

// Short says why nothing more is to be written to thin pools, by the numbers of their
// devices, by who could do without and has begun already; it is empty where something
// may.
func Short(numbers []string) string {
	answers := ask(numbers, 1)
	for _, n := range numbers {
		if why := answers[n].why; why != "" {
			return notFilled + why
		}
	}
	return ""
}

const notFilled = "its thin pool must not be filled: "

// Of are the thin pools below a volume, by the name that LVM gives to what carries the
// thin volumes (lib/activate/dev_manager.c of lvm2).
func Of(v volume.Volume) (numbers []string) {
	for _, d := range v.Stack {
		if strings.HasSuffix(d.DMName, "-tpool") {
			numbers = append(numbers, d.Number)
		}
	}
	return numbers
}

// An answer is how much may be written to a pool, or why nothing may.
type answer struct {
	room uint64 // bytes
	why  string
}

// ask asks each pool once, for so many times the reserve.
func ask(numbers []string, times uint64) map[string]answer {
	answers := map[string]answer{}
	c, err := dm.Open()
	if err == nil {
		defer c.Close()
	}
	for _, n := range numbers {
		if _, asked := answers[n]; asked {
			continue
		}
		a, aerr := answer{}, err
		if err == nil {
			a, aerr = roomOf(c, n, times)
		}
		if aerr != nil {
			a.why = aerr.Error()
		}
		answers[n] = a
	}
	return answers
}

func roomOf(c *dm.Control, number string, times uint64) (a answer, err error) {
	n, err := dm.ParseNumber(number)
	if err != nil {
		return a, err
	}
	table, err := c.Table(n)
	if err != nil {
		return a, err
	}
	state, err := c.State(n)
	if err != nil {
		return a, err
	}
	if len(table) != 1 || len(state) != 1 || table[0].Type != "thin-pool" {
		return a, fmt.Errorf("%s is no thin pool any more", number)
	}
	// thin-pool METADATA DATA BLOCK-IN-SECTORS …
	f := strings.Fields(table[0].Params)
	if len(f) < 3 {
		return a, fmt.Errorf("the table of the thin pool %s is %q", number, table[0].Params)
	}
	block, err := strconv.ParseUint(f[2], 10, 64)
	if err != nil {
		return a, err
	}
	s, err := Parse(state[0].Params)
	if err != nil {
		return a, err
	}
	a.room, a.why = s.room(block*512, times)
	return a, nil
}
