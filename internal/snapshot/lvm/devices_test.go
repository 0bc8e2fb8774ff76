//go:build vm

package lvm

import (
	"errors"
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

// A device that is to go goes also where somebody has it open for a moment, who looks at
// all that there are.
func TestScanned(t *testing.T) {
	c := control(t)
	d, err := loadDevice(c, "scanned", "", dm.Target{Length: 8, Type: "zero"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(d.Node())
	if err != nil {
		t.Fatal(errors.Join(err, removeSoon(c, d)))
	}
	closed := make(chan error, 1)
	go func() {
		time.Sleep(300 * time.Millisecond)
		closed <- f.Close()
	}()
	if err := c.Remove(d.Number, dm.Alone); !errors.Is(err, dm.ErrInUse) {
		t.Errorf("got %v, want that it is in use", err)
	}
	if err := errors.Join(removeSoon(c, d), <-closed); err != nil {
		t.Error(err)
	}
}
