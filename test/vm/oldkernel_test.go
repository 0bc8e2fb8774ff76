//go:build vm

package vm_test

import (
	"strings"
	"testing"

	"stillpoint/test/vm"
)

// TestOldKernel: a kernel without the events of copy-on-write, that of Debian 13. All
// that needs a snapshot refuses, and says why and what would work.
func TestOldKernel(t *testing.T) {
	r := newRig(t, vm.Debian, "ext4")
	if !strings.HasPrefix(r.m.Release(), "6.12.") {
		t.Fatalf("the kernel is %s", r.m.Release())
	}
	why := "Linux 6.14" // from where on
	out := r.must("stillpoint providers /")
	for _, want := range []string{"cow", "no ", why, "--provider none"} {
		if !strings.Contains(out, want) {
			t.Errorf("providers / does not say %q:\n%s", want, out)
		}
	}
	r.must("mkdir -p /var/backups && stillpoint init")
	for _, c := range []string{"backup /", "run / -- true", "snapshot create /"} {
		res := r.try("stillpoint " + c)
		if res.Code != 1 || !strings.Contains(res.Err+res.Out, "no-provider") || !strings.Contains(res.Err+res.Out, why) {
			t.Errorf("stillpoint %s: %d\n%s%s", c, res.Code, res.Out, res.Err)
		}
	}
	if out := r.must("stillpoint backups"); strings.Contains(out, " / ") {
		t.Errorf("there is a backup:\n%s", out)
	}
	// What would work does.
	out = r.must("stillpoint backup /etc --provider none")
	if !strings.Contains(out, "live") {
		t.Errorf("a backup without a snapshot does not say so:\n%s", out)
	}
	r.must("systemctl stop stillpoint-agent && ! readlink /proc/[0-9]*/exe | grep bin/stillpoint")
}
