package cow

import "testing"

// What a file's events before the instant have cost counts: it is saved whole
// soon after.
func TestPopularBeforeTheInstant(t *testing.T) {
	const number, events, size = 7, 1000, 1000 * eventCost
	f := &filter{popularity: newPopularity()}
	for range events {
		a := &access{known: true}
		a.st.Ino = number
		f.save(a, &turn{state: tracking})
	}
	for range often {
		f.popularity.count(number, size)
	}
	select {
	case n := <-f.popularity.wanted:
		if n != number {
			t.Errorf("file %d is to be saved whole", n)
		}
	default:
		t.Error("it is not saved whole after as many events as it is worth")
	}
}
