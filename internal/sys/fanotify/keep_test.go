package fanotify

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that keeps a group lets go whoever is in the queue, and whoever's
// event was read by one that is dead, in pieces of numbers.
func TestKeep(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		files := createMany(t, dir, 6)
		must(t, p.Arm(fs))
		dup, err := p.File()
		must(t, err)
		fd, err := unix.Dup(int(dup.Fd()))
		must(t, err)
		must(t, dup.Close())
		q, err := AdoptDescriptor(fd)
		must(t, err)
		defer q.Close()
		time.AfterFunc(20*time.Second, func() { q.Close() })
		done := held(t, files[:2])
		var read []Event
		for b := NewBuffer(1); len(read) < 2; {
			events, err := p.Read(b)
			must(t, err)
			read = append(read, events...)
		}
		must(t, p.Close())
		done2 := held(t, files[2:])
		b := NewBuffer(1)
		for end, left := time.Now().Add(10*time.Second), len(files[2:]); left > 0; {
			must(t, q.AllowAll(b))
			select {
			case err := <-done2:
				must(t, err)
				left--
			case <-time.After(time.Millisecond):
				if time.Now().After(end) {
					t.Fatal("a writer still waits")
				}
			}
		}
		must(t, q.AllowAll(b)) // nobody is there: it does not wait
		select {
		case err := <-done:
			t.Errorf("one whose event was read was let go: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		low := int(min(read[0].FD, read[1].FD))
		must(t, q.AllowNumbers(0, low))
		must(t, q.AllowNumbers(low, low+1))
		ends(t, done, 1)
		must(t, q.AllowNumbers(low+1, 20000))
		ends(t, done, 1)
		for _, e := range read {
			unix.Close(int(e.FD))
		}
		must(t, q.Close())
		if err := q.AllowAll(b); !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}
