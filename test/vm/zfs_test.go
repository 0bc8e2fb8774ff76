//go:build vm && zfs

package vm_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// TestZFS is a server with its data on ZFS: "make test-zfs" runs it.
func TestZFS(t *testing.T) {
	kernel := cmp.Or(os.Getenv("STILLPOINT_VM_KERNEL"), vm.Trixie)
	r := newRig(t, kernel, "ext4", func(ctx context.Context, im *vm.Image, o *vm.Options) error {
		o.Disks = 3
		files, err := im.ZFS(ctx, kernel)
		o.Files = append(o.Files, files...)
		return err
	})
	r.Logf("%s", r.must(vm.StartZFS))
	r.must(`set -e
zpool create -O mountpoint=/tank tank "$(readlink -f /dev/disk/by-id/virtio-scratch0)"
zfs create tank/busy && zfs create 'tank/My Media' && zfs create -o mountpoint=/tank/busy/deep tank/deep && zfs create -o canmount=noauto tank/later
mkdir -p /var/backups && stillpoint init
cp -a /etc '/tank/My Media' && cp /etc/fstab /tank/busy/deep && zfs snapshot tank@daily && ls /tank/.zfs/snapshot/daily
systemd-run --quiet --unit=busy guest busy /tank/busy`)
	r.soon("guest figures | grep -v '\"Payments\":0'")
	r.sub("providers", (*rig).zfsProviders)
	r.sub("backup", (*rig).zfsBackup)
	r.sub("killed", (*rig).zfsKilled)
	r.sub("fills", (*rig).zfsFills)
	r.sub("stuck", (*rig).zfsStuck)
	r.sub("with btrfs", (*rig).zfsWithBtrfs)
	r.sub("mixed", (*rig).zfsMixed)
}

func (r *rig) zfsProviders() {
	out := r.must("stillpoint providers /tank")
	if !strings.Contains(out, "zfs       chosen") {
		r.Errorf("%s", out)
	}
	r.Logf("%s", out)
}

// What is written to one dataset meanwhile is of one moment with all others.
func (r *rig) zfsBackup() {
	before := r.figures()
	out := r.mustWithin(6*time.Minute, "stillpoint backup /tank --require one-instant")
	after := r.figures()
	r.Logf("%s", out)
	if !strings.Contains(out, "snapshot of ZFS") || !strings.Contains(out, "canmount=noauto") {
		r.Errorf("what is left out is not named:\n%s", out)
	}
	r.mustWithin(4*time.Minute, "stillpoint restore latest:/tank --to /var/restored")
	r.Logf("%s", r.must(fmt.Sprintf("guest check /var/restored/tank/busy %d %d", before.Records, after.Records+1)))
	r.must("stillpoint run /tank -- test -e /tank/busy/deep/fstab")
	r.must("diff -r --no-dereference '/tank/My Media' '/var/restored/tank/My Media' && cmp /etc/fstab /var/restored/tank/busy/deep/fstab && rm -r /var/restored")
	r.noSnapshots()
}

// noSnapshots wants that the only one is the user's.
func (r *rig) noSnapshots() {
	r.Helper()
	if out := r.must("zfs list -H -t snapshot -o name; ls /var/lib/stillpoint/zfs"); strings.TrimSpace(out) != "tank@daily" {
		r.Errorf("left: %s", out)
	}
}

// What a killed backup leaves, the next one removes.
func (r *rig) zfsKilled() {
	r.must("(stillpoint backup /tank >/dev/null 2>&1 & echo $! >/run/pid; wait) >/dev/null 2>&1 &")
	r.soon("zfs list -H -t snapshot -o name | grep -q @stillpoint-")
	r.must("kill -KILL $(cat /run/pid)")
	if out := r.must("stillpoint clean --dry-run; zfs list -H -t snapshot -o name"); !strings.Contains(out, "tank@stillpoint-") {
		r.Errorf("nothing was left:\n%s", out)
	}
	r.Logf("%s", r.must("stillpoint clean"))
	r.noSnapshots()
}

// A pool and a btrfs are two instants, which is refused where one is demanded.
func (r *rig) zfsWithBtrfs() {
	r.must("mkfs.btrfs -q /dev/disk/by-id/virtio-scratch1 && mkdir /srv/btrfs && mount /dev/disk/by-id/virtio-scratch1 /srv/btrfs && cp -a /etc /srv/btrfs")
	res := r.try("stillpoint backup /tank /srv/btrfs --require one-instant")
	if res.Code == 0 || !strings.Contains(res.Out, "not-one-instant") {
		r.Errorf("ended with %d\n%s%s", res.Code, res.Out, res.Err)
	}
	r.noSnapshots()
	r.must("umount /srv/btrfs")
}

// Who writes anew what a snapshot keeps never meets the quota that it counts for: the
// snapshot is given up, and whatever reads it ends.
func (r *rig) zfsFills() {
	r.must(`set -e
systemctl stop busy
zfs create -o compression=off tank/db
dd if=/dev/urandom of=/tank/db/file bs=1M count=240 status=none && zpool sync tank
zfs set quota=420M tank/db
systemd-run --quiet --unit=fill sh -c 'while dd if=/dev/zero of=/tank/db/file bs=1M count=240 conv=notrunc,fsync status=none; do :; done'`)
	for what, script := range map[string]string{
		"a program": "stillpoint run /tank/db -- sh -c 'exec 3</tank/db/file && sleep 600'",
		// Slow enough not to be ready before.
		"a backup": "systemd-run --quiet --scope -p CPUQuota=25% stillpoint backup /tank/db",
	} {
		began := time.Now()
		res := r.long(5*time.Minute, script)
		r.Logf("%s ended after %s:\n%s%s", what, time.Since(began).Round(time.Second), res.Out, res.Err)
		if res.Code != 1 || !strings.Contains(res.Out+res.Err, "pool-full") {
			r.Errorf("%s ended with %d", what, res.Code)
		}
		if out := r.must("systemctl show -p ActiveState fill"); out != "ActiveState=active" {
			r.Errorf("who writes met the quota: %s\n%s", out, r.must("journalctl --no-pager -u fill"))
		}
		r.noSnapshots()
	}
	r.must("systemctl stop fill && zfs destroy tank/db")
}

// A pool whose disk does not answer: the backup says so and gives up, and its process ends
// when the kernel lets go of it.
func (r *rig) zfsStuck() {
	r.must(`set -e
truncate -s 600M /var/stuck.img && mkfs.ext4 -q /var/stuck.img && mkdir -p /m/stuck && mount -o loop /var/stuck.img /m/stuck
truncate -s 300M /m/stuck/pool && zpool create -O mountpoint=/hung hung /m/stuck/pool && cp /etc/fstab /hung && zpool sync hung
fsfreeze -f /m/stuck
systemd-run --quiet --unit=hangs -p StandardOutput=file:/run/hangs --setenv=STILLPOINT_REPO=$STILLPOINT_REPO --setenv=STILLPOINT_PASSWORD="$STILLPOINT_PASSWORD" --setenv=HOME=/root \
	stillpoint backup --retry 0 /hung`)
	r.soon("grep zfs-stuck /run/hangs")
	r.must("fsfreeze -u /m/stuck")
	r.soon("! systemctl is-active hangs")
	var jobs []struct{ ID, Status, Code string }
	out := r.must("stillpoint job list --json")
	if err := json.Unmarshal([]byte(out), &jobs); err != nil || len(jobs) == 0 {
		r.Fatalf("%v: %s", err, out)
	}
	i := slices.IndexFunc(jobs, func(j struct{ ID, Status, Code string }) bool { return j.Code == "zfs-stuck" })
	if i < 0 || jobs[i].Status != "failed" {
		r.Fatalf("the jobs are %+v", jobs)
	}
	r.logEndsWith("zfs-stuck", jobs[i].ID)
	r.must("stillpoint backup /hung && stillpoint clean && zpool destroy hung && umount /m/stuck && rm /var/stuck.img")
}

// Volumes that can be held are held around the pool's instant, which is theirs, too.
func (r *rig) zfsMixed() {
	r.must(`set -e
vgcreate -qq data "$(readlink -f /dev/disk/by-id/virtio-scratch2)"
lvcreate -qqy -L 400M -n linear data
lvcreate -qqy -L 800M -T data/pool
lvcreate -qqy -V 400M -n thin --thinpool pool data
mkfs.ext4 -q /dev/data/linear && mkfs.xfs -q /dev/data/thin
mkdir -p /m/linear /m/thin /m/btrfs
mount /dev/data/linear /m/linear && mount /dev/data/thin /m/thin && mount /dev/disk/by-id/virtio-scratch1 /m/btrfs
zfs create -o mountpoint=/m/zfs tank/mixed && cp -a /etc /m/zfs`)
	for _, s := range []mixedSet{
		{[]string{"zfs", "linear"}, true, false},
		{[]string{"linear", "zfs", "thin"}, true, false},
		{[]string{"btrfs", "zfs"}, false, false},
	} {
		r.sub(strings.Join(s.names, " "), func(r *rig) { r.mixed(s) })
	}
	r.noSnapshots()
	r.must("! dmsetup ls | grep -i stillpoint && ! lvs --noheadings -o lv_tags | grep -i stillpoint && ! losetup --noheadings -l | grep .")
	if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
		r.Errorf("left are:\n%s", out)
	}
}
