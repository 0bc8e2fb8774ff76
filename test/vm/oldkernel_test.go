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
	r := newRig(t, vm.Trixie, "ext4")
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
	// Doctor has said so before, and names the EFI system partition, of which this
	// kernel can have a real one.
	r.must(esp)
	res := r.try("stillpoint doctor /")
	for _, want := range []string{"kernel-old", "6.12.", "backports", "volume-efi", "/boot/efi: is the EFI system partition"} {
		if res.Code != 1 || !strings.Contains(res.Out, want) {
			t.Errorf("doctor / does not say %q: %d\n%s%s", want, res.Code, res.Out, res.Err)
		}
	}
	if res := r.try("stillpoint doctor / -e /boot/efi"); res.Code != 1 || strings.Contains(res.Out, "volume-efi") {
		t.Errorf("doctor says of what is left out: %d\n%s%s", res.Code, res.Out, res.Err)
	}
	r.must("umount /boot/efi")

	// What would work does.
	out = r.must("stillpoint backup /etc --provider none")
	if !strings.Contains(out, "live") {
		t.Errorf("a backup without a snapshot does not say so:\n%s", out)
	}
	r.must("systemctl stop stillpoint-agent && ! readlink /proc/[0-9]*/exe | grep bin/stillpoint")
}

// esp mounts an EFI system partition from a loop device. What mkfs.fat would write,
// which is not there, are a boot sector and the beginnings of two FATs (of 12 bits,
// for 2,880 sectors).
const esp = `set -e
image=/var/tmp/esp
truncate -s 1474560 $image
at() { dd of=$image bs=1 seek="$1" conv=notrunc status=none; }
printf '\353\074\220mkfs.fat\000\002\001\001\000\002\340\000\100\013\360\011\000\022\000\002\000\000\000\000\000\000\000\000\000\000\000\051\170\126\064\022ESP        FAT12   ' | at 0
printf '\125\252' | at 510
printf '\360\377\377' | at 512
printf '\360\377\377' | at 5120
mkdir -p /boot/efi
mount -t vfat -o loop $image /boot/efi`
