//go:build vm

package lvm

import (
	"os"
	"slices"
	"testing"
	"time"

	"stillpoint/internal/sys/dm"
)

func control(t *testing.T) *dm.Control {
	t.Helper()
	c, err := dm.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A table that the kernel refuses when it has suspended the device already leaves it as it
// was, and nobody waits.
func TestExchangeRefused(t *testing.T) {
	c := control(t)
	small, err := makeDevice(c, "small", "", dm.Target{Length: 8, Type: "zero"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeSoon(c, small) })
	table := []dm.Target{{Length: 64, Type: "zero"}}
	d, err := makeDevice(c, "exchanged", "", table...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Resume(d.Number, dm.Alone), removeSoon(c, d) })
	// Beyond the end of what it lies on, which is found when the tables are exchanged.
	if err := exchange(c, d, []dm.Target{{Length: 64, Type: "linear", Params: small.Number.String() + " 0"}}); err == nil {
		t.Fatal("the table was taken: this test proves nothing")
	}
	if is, err := c.Status(d.Number); err != nil || is.Suspended || is.Loaded {
		t.Fatalf("%+v, %v", is, err)
	}
	if is, err := c.Table(d.Number); err != nil || !slices.Equal(is, table) {
		t.Errorf("its table is %v, %v", is, err)
	}
	if b, err := os.ReadFile(d.Node()); err != nil || len(b) != 64*512 {
		t.Errorf("read %d bytes: %v", len(b), err)
	}
}

// A device that cannot be made goes also where somebody has opened it at once, who looks
// at all that there are.
func TestScanned(t *testing.T) {
	c := control(t)
	const name = "scanned"
	find := func() (d dm.Device, there bool) {
		all, err := c.List()
		if err != nil {
			t.Error(err)
		}
		i := slices.IndexFunc(all, func(d dm.Device) bool { return d.Name == name })
		if i < 0 {
			return d, false
		}
		return all[i], true
	}
	for range 100 {
		opened, quit := make(chan bool, 1), make(chan struct{})
		go func() {
			for {
				select {
				case <-quit:
					opened <- false
					return
				default:
				}
				if d, there := find(); there {
					if f, err := os.Open(d.Node()); err == nil {
						time.Sleep(300 * time.Millisecond)
						f.Close()
						opened <- true
						return
					}
				}
			}
		}()
		_, err := makeDevice(c, name, "", dm.Target{Length: 8, Type: "nosuchtarget"}) // for which the kernel looks for a module
		close(quit)
		_, there := find()
		was := <-opened
		if d, is := find(); is {
			_ = removeSoon(c, d)
		}
		if err == nil {
			t.Fatal("it was made")
		}
		if was {
			if there {
				t.Error("it is left")
			}
			return
		}
	}
	t.Error("nobody could open it: this test proves nothing")
}
