//go:build vm

package lvm

import (
	"os"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// What suspends the room of a classic volume, and may have been killed then, lets no
// writer of that wait for long, and hinders no release.
func TestThickRoomSuspended(t *testing.T) {
	g := newBare(t, 900)
	v := g.thick(t, "a", "ext4", 400)
	if err := os.WriteFile(v.Dir+"/file", make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "sync", v.Dir)
	was := describeThick(t, g)
	s := take(t, New(hostTable), "suspended", v)[0]
	room := namePrefix + "suspended" + roomInfix + "0"
	suspend := func() { scratch.Run(t, "dmsetup", "suspend", g.name+"-"+strings.ReplaceAll(room, "-", "--")) }
	at := int64(0)
	write := func(after string) {
		t.Helper()
		done := make(chan error, 1)
		go func() {
			f, err := os.OpenFile(v.Dir+"/file", os.O_WRONLY|os.O_SYNC, 0)
			if err == nil {
				_, err = f.WriteAt([]byte(after), at)
				f.Close()
			}
			done <- err
		}()
		at += 256 << 10 // whose original is not kept yet
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("after %s: %v", after, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("after %s a writer waits", after)
		}
	}
	scratch.Run(t, "lvchange", "--refresh", g.name+"/"+room)
	write("a refresh")
	suspend()
	write("a suspension")
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	scratch.Run(t, "lvextend", "--yes", "-q", "-q", "-l", "+1", g.name+"/"+room)
	write("an extension")
	if err := s.Err(); err == nil {
		suspend()
	} else if problem.CodeOf(err) != problem.SnapshotLost { // where LVM took long
		t.Error(err)
	}
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	same(t, g, was)
}
