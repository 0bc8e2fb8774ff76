//go:build vm

package dm

import (
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// What has nearly a UUID of ours, of a process that has ended, is named and left alone.
func TestNearlyOurs(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	ours := tag{kind: kindSnapshot, origin: number, set: "set", owner: owner{pid: 1 << 30, start: 1, namespace: initNamespace}}
	if _, ok := parseTag(ours.uuid()); !ok {
		t.Fatal("it would not be ours either: this test proves nothing")
	}
	was := describe(t, nil)
	var made []dm.Device
	for what, uuid := range map[string]string{
		"longer":    ours.uuid() + "-1",
		"unhidden":  strings.TrimPrefix(ours.uuid(), private),
		"case":      strings.Replace(ours.uuid(), "snapshot", "Snapshot", 1),
		"scheme":    strings.Replace(ours.uuid(), uuidPrefix+scheme, uuidPrefix+"01", 1),
		"zero":      strings.Replace(ours.uuid(), "-set-0-", "-set-00-", 1),
		"no owner":  strings.TrimSuffix(ours.uuid(), "-"+ours.owner.String()),
		"no number": strings.Replace(ours.uuid(), number.String(), "0"+number.String(), 1),
		"real":      (tag{kind: kindReal, origin: number}).uuid() + " ",
		"none":      "",
	} {
		d, err := c.Create(namePrefix+strings.ReplaceAll(what, " ", "")+"-0-"+kindSnapshot, uuid)
		r.must(err)
		t.Cleanup(func() { _ = removeDevice(c, d) })
		r.must(c.Load(d.Number, []dm.Target{{Length: 8, Type: "zero"}}, false))
		r.must(c.Resume(d.Number, 0))
		made = append(made, d)
	}
	with := describe(t, nil)
	left, err := r.p.Leftovers(t.Context())
	if len(left) > 0 {
		t.Errorf("%d leftovers", len(left))
	}
	for _, d := range made {
		if !problem.Is(err, problem.LeftoverForeign) || !strings.Contains(err.Error(), d.Name) {
			t.Errorf("%s (%q) is not named: %v", d.Name, d.UUID, err)
		}
	}
	// Nor are they in the way of a snapshot of that volume.
	s := r.take()
	r.must(s.Err())
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != with {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, with)
	}
	for _, d := range made {
		r.must(removeDevice(c, d))
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}
