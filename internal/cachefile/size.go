package cachefile

import (
	"fmt"
	"strconv"
	"strings"

	"stillpoint/internal/thinpool"
	"stillpoint/internal/volume"
)

// A Size is so many bytes, or so many percent of the free space where the cache
// file goes. The zero Size stands for the default.
type Size struct {
	bytes   int64
	percent float64
}

// Bytes is a Size.
func Bytes(n int64) Size { return Size{bytes: n} }

// Fixed is how many bytes it is, unless it is a share or the default.
func (s Size) Fixed() (n int64, ok bool) { return s.bytes, s.bytes > 0 }

// Percent is a Size.
func Percent(p float64) Size { return Size{percent: p} }

// ParseSize reads "10%", "500M", "2GiB" or a number of bytes; units are powers
// of 1024.
func ParseSize(text string) (Size, error) {
	t := strings.TrimSpace(text)
	if number, ok := strings.CutSuffix(t, "%"); ok {
		p, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(p > 0 && p <= 100) {
			return Size{}, fmt.Errorf("%q is no share of the free space: want 1%% to 100%%", text)
		}
		return Percent(p), nil
	}
	number := strings.TrimRight(t, "BbIiKkMmGgTt ")
	unit := strings.ToUpper(strings.TrimSpace(t[len(number):]))
	factor, ok := units[unit]
	if !ok {
		return Size{}, fmt.Errorf("%q is no size: want bytes, K, M, G, T or %%", text)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)/factor {
		return Size{}, fmt.Errorf("%q is no size: want bytes, K, M, G, T or %%", text)
	}
	return Bytes(n * factor), nil
}

var units = map[string]int64{
	"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MB": 1 << 20, "MIB": 1 << 20,
	"G": 1 << 30, "GB": 1 << 30, "GIB": 1 << 30, "T": 1 << 40, "TB": 1 << 40, "TIB": 1 << 40,
}

// of returns the size in bytes, 0 for the default.
func (s Size) of(free uint64) int64 {
	if s.percent > 0 {
		return int64(float64(free) * s.percent / 100)
	}
	return s.bytes
}

// keepMost is the most that is kept free for others.
const keepMost = 1 << 30

// floorLeast is what others need to go on while a file gives its blocks back.
const floorLeast = 16 << 20

// floor is at most half of what the files leave free themselves, so that these
// do not end by their own doing.
func floor(v *volume.Volume, keep int64) int64 {
	return min(keep/2, max(int64(v.Size/100), floorLeast))
}

// wholly is how much may be used on a volume whose cache file may hold an original
// of all of it: a busy database of a few hundred MiB changes most of its blocks in
// seconds (bench/sets: pgbench with 170 MiB changes more than 100 MiB in one).
const wholly = 1 << 30

// share divides room among files in proportion to their maxima. Where one would get too
// little, which is beside a much larger one, each gets Least first, if there is so much.
func share(limits []Limits, room int64) []int64 {
	total, least := int64(0), room
	for _, l := range limits {
		total, least = total+l.Maximum, min(least, l.Maximum)
	}
	first := int64(0)
	if each := Least * int64(len(limits)); float64(least)/float64(total)*float64(room) < Least && each <= room && each < total {
		first = Least
	}
	shares := make([]int64, len(limits))
	rest, of := room-first*int64(len(limits)), total-first*int64(len(limits))
	for i, l := range limits {
		shares[i] = first + int64(float64(l.Maximum-first)/float64(of)*float64(rest))
	}
	return shares
}

// Divide says how large what keeps the originals of each volume of a set may become
// where so much is free, by the rules of Place.
func Divide(maximum Size, set []volume.Volume, free uint64) ([]Limits, error) {
	room := int64(free / 10 * 9)
	limits := make([]Limits, len(set))
	total := int64(0)
	for i := range limits {
		m := maximum.of(free)
		if m == 0 {
			m = int64(max(set[i].Used/10*3, min(set[i].Used, wholly)))
		}
		limits[i].Maximum = min(max(m, Least), room)
		total += limits[i].Maximum
	}
	shares := share(limits, room)
	for i := range limits {
		l := &limits[i]
		if total > room {
			l.Maximum = shares[i]
		}
		if maximum == (Size{}) {
			l.Raised = shares[i]
		}
		if l.Maximum < Least {
			return nil, fmt.Errorf("too little free space: %d MiB, and 90 %% of it is not %d MiB for each of %d volumes", free>>20, Least>>20, len(limits))
		}
	}
	return limits, nil
}

// limits divides the free space of a place among the files of the set.
func (h *host) limits(r Rules, v *volume.Volume) ([]Limits, error) {
	free := v.Free
	limits, err := Divide(r.Maximum, h.set, free)
	if err != nil {
		return nil, err
	}
	for i := range limits {
		l := &limits[i]
		l.Initial = r.Initial.of(free)
		if l.Initial == 0 {
			l.Initial = Least
		}
		l.Initial = min(l.Initial, l.Maximum)
		l.Keep = min(int64(free/10), keepMost)
		l.Floor = floor(v, l.Keep)
		l.Memory = r.Memory
		l.Pools = thinpool.Of(*v)
	}
	return limits, nil
}
