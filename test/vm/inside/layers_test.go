//go:build vm

package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestLayers runs in a machine itself (go test -exec): its disks carry every kind of
// volume that the providers are tested on, with the tools and the modules it has.
func TestLayers(t *testing.T) {
	if _, err := os.Stat("/dev/disk/by-id/virtio-scratch3"); err != nil {
		t.Fatal("this is a machine of the bench with four disks? ", err)
	}
	for _, c := range []struct{ name, script string }{
		{"linear", `dmsetup create plain --table "0 $(blockdev --getsz $disk0) linear $disk0 0"; try ext4 /dev/mapper/plain; dmsetup remove plain`},
		{"snapshot", `dmsetup create origin --table "0 204800 snapshot-origin $disk0"
			dmsetup create snapshot --table "0 204800 snapshot $disk0 $disk1 N 8"; dmsetup remove snapshot; dmsetup remove origin`},
		{"lvm", `vgcreate -q -y vg $disk0 $disk1; lvcreate -q -y -L 400M -n linear vg; try xfs /dev/vg/linear
			lvcreate -q -y -i 2 -L 400M -n striped vg; try ext4 /dev/vg/striped
			lvcreate -q -y -s -L 100M -n thick vg/linear; lvremove -q -y vg/thick
			lvcreate -q -y -T -L 800M -V 1G -n thin vg/pool; try xfs /dev/vg/thin
			lvcreate -q -y -s -n snapshot vg/thin; lvs -a vg; vgremove -q -y vg`},
		{"LUKS over LVM", `vgcreate -q -y vg $disk2; lvcreate -q -y -L 400M -n lv vg
			printf key | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vg/lv -
			printf key | cryptsetup open --key-file - /dev/vg/lv crypt; try ext4 /dev/mapper/crypt; cryptsetup close crypt; vgremove -q -y vg`},
		{"btrfs", `try btrfs $disk3; wipefs -qa $disk3`},
		{"tools", `for t in dmsetup lvs thin_dump cryptsetup fio rsync getfacl getfattr capsh debugfs xfs_repair sqlite3 findmnt; do command -v $t; done`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "sh", "-ec", prelude+c.script).CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// prelude names the disks, and tries a file system on a device.
const prelude = `
for i in 0 1 2 3; do eval disk$i=$(readlink -f /dev/disk/by-id/virtio-scratch$i); done
try() {
	mkfs.$1 -q $2
	mount $2 /mnt
	echo text >/mnt/file
	umount /mnt
	mount -o ro $2 /mnt
	grep -q text /mnt/file
	umount /mnt
}
`
