package backup

import (
	"testing"

	"pgregory.net/rapid"

	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

// All data of a file are in exactly one run, holes in none, and no run is
// longer than one goroutine should restore.
func TestRunsCoverTheData(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := &repository.Record{}
		length := rapid.OneOf(rapid.Int64Range(1, 100), rapid.Int64Range(hole-2, hole+2), rapid.Int64Range(stretch-2, 3*stretch))
		data := map[tree.Range]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "stretches") {
			if rapid.Bool().Draw(t, "hole") {
				h := tree.Range{Offset: rec.Size, Length: length.Draw(t, "length")}
				rec.Holes = append(rec.Holes, h)
				rec.Size += h.Length
			}
			d := tree.Range{Offset: rec.Size, Length: length.Draw(t, "length")}
			data[d] = true
			rec.Size += d.Length
		}
		at := int64(0)
		var bytes, want int64
		for d := range data {
			want += d.Length
		}
		for _, run := range runsOf(rec) {
			if end(run)-run[0].Offset > stretch {
				t.Fatalf("a run from %d to %d", run[0].Offset, end(run))
			}
			for _, p := range run {
				if p.Offset < at || p.Length <= 0 {
					t.Fatalf("%d bytes at %d, after %d", p.Length, p.Offset, at)
				}
				for _, h := range rec.Holes {
					if p.Offset < h.Offset+h.Length && h.Offset < p.Offset+p.Length {
						t.Fatalf("%d bytes at %d lie in the hole at %d", p.Length, p.Offset, h.Offset)
					}
				}
				at = p.Offset + p.Length
				bytes += p.Length
			}
		}
		if bytes != want || at != rec.Size && want > 0 {
			t.Fatalf("%d of %d bytes, to %d of %d", bytes, want, at, rec.Size)
		}
	})
}
