package index

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// The package comment and Inode's say how large it is.
func TestInodeIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Inode{}); size > 176 {
		t.Errorf("an Inode has %d bytes", size)
	}
}

// merge does what a map would.
func TestMerge(t *testing.T) {
	name := rapid.StringMatching("[a-d]{1,2}")
	sorted := func(m map[string]uint64) (all []Child) {
		for _, n := range slices.Sorted(maps.Keys(m)) {
			all = append(all, Child{n, m[n]})
		}
		return all
	}
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.MapOf(name, rapid.Uint64Range(1, 5)).Draw(t, "before")
		found := rapid.MapOf(name, rapid.Uint64Range(none, 5)).Draw(t, "found")
		whole := rapid.Bool().Draw(t, "whole")
		want := map[string]uint64{}
		if !whole {
			maps.Copy(want, before)
		}
		maps.Copy(want, found)
		maps.DeleteFunc(want, func(_ string, n uint64) bool { return n == none })
		names := map[uint64]int{} // how many more names each number has
		for _, n := range before {
			names[n]--
		}
		for _, n := range want {
			names[n]++
		}
		got, removed, added := merge(sorted(before), sorted(found), whole)
		for _, n := range removed {
			names[n]++
		}
		for _, n := range added {
			names[n]--
		}
		if !slices.Equal(got, sorted(want)) {
			t.Errorf("%v, want %v", got, sorted(want))
		}
		for n, left := range names {
			if left != 0 {
				t.Errorf("inode %d: %d names not counted; removed %v, added %v", n, left, removed, added)
			}
		}
	})
}

// How long a freeze may be held up by changes of a directory with a million names.
func BenchmarkMerge(b *testing.B) {
	all := make([]Child, 1_000_000, slack(1_000_000))
	for i := range all {
		all[i] = Child{fmt.Sprintf("%07d", i), uint64(i + 1)}
	}
	for _, n := range []int{1, fewNames, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var come, gone []Child
			for i := range n {
				name := fmt.Sprintf("%07dx", i*4321)
				come, gone = append(come, Child{name, 1}), append(gone, Child{name, none})
			}
			for b.Loop() {
				all, _, _ = merge(all, come, false)
				all, _, _ = merge(all, gone, false)
			}
		})
	}
}
