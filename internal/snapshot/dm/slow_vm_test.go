//go:build vm && faults

package dm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// A table that another program loads, or makes live, while we wait to try an exchange once
// more stays, whichever way the exchange was.
func TestChangedBetweenTries(t *testing.T) {
	for name, c := range map[string]struct{ back, live bool }{
		"asks, loaded": {false, false}, "asks, live": {false, true}, "gives back, loaded": {true, false}, "gives back, live": {true, true},
	} {
		t.Run(name, func(t *testing.T) { changeBetweenTries(t, c.back, c.live) })
	}
}

func changeBetweenTries(t *testing.T, back, live bool) {
	var lower dm.Number
	r := newRig(t, above(&lower), "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	table, err := c.Table(number)
	r.must(err)
	half := dm.Sectors(table) / 2
	// Another one, with the same content.
	other := []dm.Target{
		{Length: half, Type: "linear", Params: lower.String() + " 0"},
		{Start: half, Length: dm.Sectors(table) - half, Type: "linear", Params: lower.String() + " " + fmt.Sprint(half)},
	}
	o := origin{c, number}
	real, err := o.lay()
	r.must(err)
	way := func() error { return o.ask(real) }
	if back {
		r.must(way())
		way = o.restore
	}
	reached := filepath.Join(t.TempDir(), "reached")
	t.Setenv("STILLPOINT_FAULT_REACHED", reached)
	t.Setenv("STILLPOINT_FAULT", "wait:"+fault.DMSlow)
	goOn := r.stick(lower)
	done := make(chan error, 1)
	go func() { done <- way() }()
	r.await("a try that was too slow", func() bool {
		_, err := os.Stat(reached)
		return err == nil
	})
	if live {
		goOn()
	}
	r.must(c.Load(number, other, false))
	if live {
		r.must(c.Resume(number, 0))
	}
	os.Unsetenv("STILLPOINT_FAULT")
	r.must(os.Remove(reached))
	err = <-done
	if back && live { // then there is nothing to give back
		r.must(err)
	} else if problem.CodeOf(err) != problem.Busy {
		t.Errorf("got %v, want busy", err)
	}
	is, err := c.Waiting(number)
	if live {
		is, err = c.Table(number)
	}
	if err != nil || !slices.Equal(is, other) {
		t.Errorf("the other program's table is %v, %v", is, err)
	}
	if live {
		r.must(c.Load(number, table, false))
		r.must(c.Resume(number, 0))
	} else {
		r.must(c.Clear(number))
		goOn()
	}
	r.must(o.restore())
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}
