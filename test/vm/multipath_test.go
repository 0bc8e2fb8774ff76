//go:build vm

package vm_test

import (
	"strings"
	"testing"

	"stillpoint/test/vm"
)

// multipathLayout makes two maps as multipathd would, of one path each: one with a volume
// group on it, and one with a file system. LVM is told which disks are paths: it sees that
// by itself of SCSI and NVMe only (lib/device/dev-mpath.c of LVM).
const multipathLayout = `set -e
echo "devices { global_filter = [ \"r|^$(readlink -f /dev/disk/by-id/virtio-scratch0)$|\", \"r|^$(readlink -f /dev/disk/by-id/virtio-scratch1)$|\" ] }" >/etc/lvm/lvmlocal.conf
path() {
	dev=$(readlink -f /dev/disk/by-id/virtio-scratch$2)
	dmsetup create $1 --uuid mpath-stillpoint-test-$1 --table "0 $(blockdev --getsz $dev) multipath 0 0 1 1 service-time 0 1 0 $(lsblk --noheadings --nodeps --output MAJ:MIN $dev | tr -d ' ')"
}
path mpatha 0
path mpathb 1
vgcreate -qq san /dev/mapper/mpatha
lvcreate -qqy -L 400M -n ext4 san
lvcreate -qqy -L 400M -n xfs san
mkfs.ext4 -q /dev/san/ext4
mkfs.xfs -q /dev/san/xfs
mkfs.ext4 -q /dev/mapper/mpathb
mkdir -p /m/ext4 /m/xfs /m/direct /var/backups
mount /dev/san/ext4 /m/ext4
mount /dev/san/xfs /m/xfs
mount /dev/mapper/mpathb /m/direct
for dir in /m/*; do cp -a /etc $dir; done
pvs --noheadings --options pv_name,vg_name
stillpoint init
`

// TestMultipath has volumes of LVM on multipath, which dm takes as any others, and a file
// system on multipath itself, which it leaves to copy-on-write.
func TestMultipath(t *testing.T) {
	for _, kernel := range []string{vm.Trixie, vm.Backports} {
		t.Run(kernel, func(t *testing.T) {
			r := newRigWith(t, vm.Options{Kernel: kernel, FS: "ext4", Disks: 2, DiskMB: 2048}, "")
			out := r.must(multipathLayout)
			if !strings.Contains(out, "/dev/mapper/mpatha san") {
				t.Fatalf("the volume group is not on multipath:\n%s", out)
			}
			r.sub("volumes", (*rig).onMultipath)
			r.sub("directly", func(r *rig) { r.directlyOnMultipath(kernel) })
			r.must("! dmsetup ls | grep -i stillpoint- && ! losetup --noheadings -l | grep .")
			if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
				r.Errorf("left are:\n%s", out)
			}
		})
	}
}

// tables are those of all devices.
const tables = "dmsetup table | sort; dmsetup info --columns --noheadings --options name,uuid,suspended | sort"

func (r *rig) onMultipath() {
	before := r.must(tables)
	r.must("systemd-run --quiet --unit=rounds guest rounds /m/ext4 /m/xfs")
	defer r.try("systemctl stop rounds")
	r.soon("test -s /m/xfs/counter")
	for range 3 {
		who, one := r.providers("stillpoint backup --json --retry 5 --retry-wait 2s --require one-instant --cache-dir /var/tmp /m/ext4 /m/xfs")
		if who["/m/ext4"] != "dm" || who["/m/xfs"] != "dm" || !one {
			r.Errorf("taken by %v, at one instant: %v", who, one)
		}
		r.must("rm -rf /var/restored && stillpoint restore latest --to /var/restored")
		r.Logf("%s", r.must("cd /var/restored/m && guest ordered ext4 xfs && diff -r --no-dereference /etc ext4/etc && diff -r --no-dereference /etc xfs/etc"))
		if after := r.must(tables); after != before {
			r.Errorf("there are\n%s\nand before there were\n%s", after, before)
		}
	}
	r.must("systemctl is-active -q rounds && dmsetup status mpatha | grep -Eq ' [0-9]+:[0-9]+ A 0 '") // the path is active, and never failed
}

func (r *rig) directlyOnMultipath(kernel string) {
	said := r.said("/m/direct")
	if why := said.reason("/m/direct", "dm"); !strings.Contains(why, "it is a multipath device itself, with no volume of LVM on it") {
		r.Errorf("dm says %q", why)
	}
	before := r.must(tables)
	const by = "stillpoint backup --json --retry 5 --retry-wait 2s --cache-dir /var/tmp /m/direct"
	if kernel == vm.Trixie { // has no copy-on-write
		if res := r.try(by); res.Code != 1 || !strings.Contains(res.Out+res.Err, "no-provider") {
			r.Errorf("%d %s%s", res.Code, res.Out, res.Err)
		}
	} else if who, _ := r.providers(by); who["/m/direct"] != "cow" {
		r.Errorf("taken by %v", who)
	}
	if res := r.try("stillpoint backup --provider dm /m/direct"); res.Code != 1 || !strings.Contains(res.Out+res.Err, "no-provider") {
		r.Errorf("by name: %d %s%s", res.Code, res.Out, res.Err)
	}
	if after := r.must(tables); after != before {
		r.Errorf("there are\n%s\nand before there were\n%s", after, before)
	}
}
