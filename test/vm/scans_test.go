//go:build vm

package vm_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"stillpoint/test/vm"
)

// scanLayout makes volumes of which a snapshot is by dm, by lvm in a pool, and by lvm in a
// room.
const scanLayout = `set -e
cd /dev/disk/by-id
vgcreate -qq data "$(readlink -f virtio-scratch0)"
lvcreate -qqy -L 400M -n linear data
lvcreate -qqy -L 400M -n classic data
lvcreate -qqy -L 800M -T data/pool
lvcreate -qqy -V 400M -n thin --thinpool pool data
mkfs.ext4 -q /dev/data/linear
mkfs.xfs -q /dev/data/classic
mkfs.xfs -q /dev/data/thin
mkdir -p /m/linear /m/classic /m/thin
for name in linear classic thin; do mount /dev/data/$name /m/$name; cp -a /etc /m/$name; done
mkdir -p /var/backups
stillpoint init
`

// TestScans has what looks at all disks of a server by itself: udisks, and multipath's
// tools and daemon, which the other tests have not. What they show of a device that is
// there for a snapshot is nothing that they or somebody would use.
func TestScans(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Trixie, FS: "ext4", Disks: 1}, "faults", func(ctx context.Context, _ *vm.Image, o *vm.Options) error {
		files, err := vm.Scans(ctx)
		o.Files = append(o.Files, files...)
		return err
	})
	r.Logf("%s", r.must(vm.StartScans))
	r.must(scanLayout)
	before := r.devices()
	r.usable(before, nil) // or nothing is looked at
	r.backUpTo("backup:captured", "exec stillpoint backup --retry 5 --retry-wait 2s --cache-dir /var/tmp --provider /m/linear=dm --provider /m/classic=lvm --provider /m/thin=lvm /m/linear /m/classic /m/thin")
	var ours []string
	for _, name := range r.devices() {
		if !slices.Contains(before, name) {
			ours = append(ours, name)
		}
	}
	if len(ours) < 8 { // devices below two origins, two stores, their ends hidden, a loop device, a place with two
		t.Errorf("there are only %s\n%s", ours, r.must("dmsetup ls --tree; losetup -l"))
	}
	r.Logf("ours are %s\n%s", ours, r.must("dmsetup info --columns --options blkdevname,name,uuid"))
	for _, again := range []string{"", "udevadm trigger --subsystem-match=block --action=change --settle", "systemctl restart udisks2 multipathd && { multipath || true; } && multipathd reconfigure", "blkid -g; vgscan -qq; pvscan -qq --cache"} {
		r.must("udevadm settle; " + again)
		r.usable(before, ours)
	}
	r.must("rm /run/reached")
	r.soon("! systemctl is-active -q backup && ! dmsetup ls | grep stillpoint")
	r.must("stillpoint verify latest")
	if after := r.devices(); !slices.Equal(after, before) {
		t.Errorf("there are %s, and before there were %s", after, before)
	}
}

// devices are the block devices by the kernel's names.
func (r *rig) devices() []string {
	r.Helper()
	return strings.Fields(r.must("udevadm settle; ls /sys/class/block | while read -r name; do test $(cat /sys/class/block/$name/size) = 0 || echo $name; done"))
}

// usable wants that udisks knows the file systems on the devices of before, once each,
// and that nobody shows anything on ours.
func (r *rig) usable(before, ours []string) {
	r.Helper()
	for _, name := range []string{"linear", "classic", "thin"} {
		origin := r.must("basename $(readlink -f /dev/data/" + name + ")")
		uuid := r.must("findmnt --noheadings --output UUID /m/" + name)
		var on []string
		for device, text := range r.udisks() {
			if strings.Contains(text, uuid) {
				on = append(on, device)
			}
		}
		if !slices.Equal(on, []string{origin}) || !slices.Contains(before, origin) {
			r.Errorf("for udisks the file system of %s (%s) is on %s", name, origin, on)
		}
		if got := r.must("readlink -f /dev/disk/by-uuid/" + uuid); got != "/dev/"+origin {
			r.Errorf("for udev the file system of %s (%s) is on %s", name, origin, got)
		}
	}
	all := r.udisks()
	for _, name := range ours {
		text := all[name]
		for _, bad := range []string{".Filesystem:", ".Encrypted:", ".Swapspace:", ".PartitionTable:", "HintAuto:                   true"} {
			if strings.Contains(text, bad) {
				r.Errorf("udisks shows of %s:\n%s", name, text)
			}
		}
	}
	paths, maps := r.must("multipathd show paths format '%d %w %o'"), r.must("multipath -ll; dmsetup table --target multipath | sed '/^No devices found$/d'")
	scan := r.must("multipath -v3 -d 2>&1")
	_, listed, _ := strings.Cut(scan, "paths list")
	r.Logf("paths of multipath:\n%s\nmaps:\n%s\nit would use:\n%s", paths, maps, listed)
	if maps != "" {
		r.Errorf("multipath has made\n%s", maps)
	}
	for _, name := range ours {
		for line := range strings.Lines(paths + "\n" + listed) {
			if slices.Contains(strings.Fields(line), name) {
				r.Errorf("multipath shows of %s: %s", name, line)
			}
		}
	}
}

// udisks is what udisks shows of each block device.
func (r *rig) udisks() map[string]string {
	r.Helper()
	all, name := map[string]string{}, ""
	for line := range strings.Lines(r.must("udisksctl dump")) {
		if object, ok := strings.CutPrefix(line, "/org/freedesktop/UDisks2/"); ok {
			name = strings.TrimRight(object, ":\n")
			name = strings.ReplaceAll(strings.TrimPrefix(name, "block_devices/"), "_2d", "-")
		}
		all[name] += line
	}
	if len(all) < 2 {
		r.Fatal("udisks shows nothing")
	}
	return all
}
