//go:build vm

package lvm

import (
	"os"
	"slices"
	"testing"

	"stillpoint/internal/sys/dm"
)

// Somebody has removed our devices, and others have their numbers by now: these are
// left alone.
func TestNumbers(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	s := take(t, New(hostTable), "numbers", v)[0].(*target)
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	c, err := dm.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	table := []dm.Target{{Length: 64, Type: "zero"}}
	var strangers []dm.Device
	func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.shown.Close(); err != nil {
			t.Error(err)
		}
		s.shown = nil
		ours := []dm.Device{s.devices.upper, s.devices.lower}
		for _, d := range ours {
			until(t, "the removal of "+d.Name, func() bool { return c.Remove(d.Number, dm.Alone) == nil })
		}
		for _, name := range []string{"stranger", "another"} {
			d, err := makeDevice(c, name, "", table...)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(d.Node())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				f.Close()
				if err := removeSoon(c, d); err != nil { // which waits for udev
					t.Error(err)
				}
			})
			if !slices.ContainsFunc(ours, func(o dm.Device) bool { return o.Number == d.Number }) {
				t.Errorf("%s is none of the numbers %s and %s", d.Number, ours[0].Number, ours[1].Number)
			}
			strangers = append(strangers, d)
		}
	}()
	s.spare()
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	for _, d := range strangers {
		if is, err := c.Table(d.Number); err != nil || !slices.Equal(is, table) {
			t.Errorf("%s has the table %v, %v", d.Name, is, err)
		}
	}
}
