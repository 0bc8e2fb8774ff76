package cow

import (
	"slices"
	"testing"

	"stillpoint/internal/snapshot/cow/hot"
)

// What a scan borrows from others is theirs; what this process has open itself, or
// maps, it is told about as any other.
func TestBorrowed(t *testing.T) {
	const self, other = 10, 20
	theirs := hot.Use{Kind: hot.Descriptor, Inode: 1, PID: other}
	borrowed := hot.Use{Kind: hot.Descriptor, Inode: 1, PID: self}
	own := hot.Use{Kind: hot.Descriptor, Inode: 2, PID: self}
	mapped := hot.Use{Kind: hot.Mapping, Inode: 1, PID: self}
	got := withoutBorrowed([]hot.Use{borrowed, theirs, own, mapped}, self)
	if want := []hot.Use{theirs, own, mapped}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
