//go:build vm

package dm

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"stillpoint/internal/sys/dm"
)

// LVM does not find what our devices hold: here the volume has the label of a physical
// volume, in a sector that ext4 leaves alone, and so has all that its beginning is copied to.
func TestUnseenByLVM(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	d, err := c.Status(number)
	r.must(err)
	other := disk(t, t.TempDir(), name("pv"), 400)
	run(t, "pvcreate", "-q", "--yes", "--metadatacopies", "0", other)
	label := make([]byte, 512)
	at := func(node string, do func(f *os.File) error) {
		f, err := os.OpenFile(node, os.O_RDWR, 0)
		r.must(err)
		r.must(errors.Join(do(f), f.Sync(), f.Close()))
	}
	write := func(f *os.File) error {
		_, err := f.WriteAt(label, 512)
		return err
	}
	at(other, func(f *os.File) error {
		_, err := f.ReadAt(label, 512)
		return err
	})
	at(d.Node(), write)
	label = make([]byte, 512)
	at(other, write)
	finds := func() string {
		run(t, "udevadm", "settle")
		out, err := exec.CommandContext(t.Context(), "pvs", "--all", "--noheadings", "-o", "pv_name,pv_uuid").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return string(out)
	}
	if is := finds(); !strings.Contains(is, d.Name) {
		t.Fatalf("LVM does not find it on the volume itself: this test proves nothing\n%s", is)
	}
	s := r.take().(*target)
	label[0] = 1 // so that the first chunk is copied to the store
	at(d.Node(), write)
	is := finds() + run(t, "lvmdiskscan")
	for _, of := range []dm.Device{s.snap, s.store.device} {
		if strings.Contains(is, of.Name+" ") || strings.Contains(is, of.Node()+" ") {
			t.Errorf("LVM finds %s:\n%s", of.Name, is)
		}
	}
	r.must(s.Release(t.Context()))
}
