package fanotify

import (
	"os"
	"testing"
	"time"
)

// Of events that have the same number, because the first one's descriptor is
// closed, an answer is for the one that was read first. Allow counts on it.
func TestSameNumber(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		files := createMany(t, dir, 3)
		must(t, p.Arm(fs))
		b := NewBuffer(1)
		var done []<-chan error
		number := int32(-1)
		for _, f := range files {
			done = append(done, held(t, []*os.File{f}))
			events, err := p.Read(b)
			must(t, err)
			if number >= 0 && events[0].FD != number {
				t.Fatalf("the number %d was free, and an event got %d", number, events[0].FD)
			}
			number = events[0].FD
			p.Drop(events[0])
		}
		waits := func(done <-chan error) {
			t.Helper()
			select {
			case err := <-done:
				t.Fatalf("one was let go before his turn: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
		}
		must(t, p.Answer(Event{FD: number}))
		ends(t, done[0], 1)
		waits(done[1])
		waits(done[2])
		must(t, p.AllowNumbers(int(number), int(number)+1)) // all that have it
		ends(t, done[1], 1)
		ends(t, done[2], 1)
	})
}
