//go:build vm

package vm_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// TestMapped has volumes on device-mapper, / among them, on a kernel on which
// copy-on-write takes none.
func TestMapped(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Trixie, FS: "ext4", Disks: 3, DiskMB: 3072}, "")
	r.must(choiceLayout + "stillpoint init")
	r.sub("no place", (*rig).nobodyElse)
	r.sub("agent", func(r *rig) { r.mappedByAgent("/m/thin") })
	r.sub("start alone", (*rig).startAlone)
	r.noDevices()
	r.sub("root", (*rig).mappedRoot)
}

// Where dm has no place for its cache file, and nobody else takes the volume, dm's reason
// is that of the failure.
func (r *rig) nobodyElse() {
	res := r.try("stillpoint backup --cache-dir /m/linear --one-file-system /m/linear")
	if res.Code != 1 || !strings.Contains(res.Out+res.Err, "cache-nowhere") || !strings.Contains(res.Out+res.Err, "part of the set") {
		r.Errorf("%d %s%s", res.Code, res.Out, res.Err)
	}
}

// What the agent keeps by dm goes with it, by the hand of the next one.
func (r *rig) mappedByAgent(others string) {
	r.must("stillpoint snapshot create --json " + others + " >/run/other && stillpoint snapshot create /m/linear >/run/id && stillpoint snapshot mount $(cat /run/id) /mnt && test $(cat /mnt/m/linear/name) = /m/linear")
	if out := r.must("stillpoint snapshot list"); !slices.Contains(strings.Fields(out), "dm") || !slices.Contains(strings.Fields(out), "lvm") {
		r.Errorf("%s", out)
	}
	r.nextAgent("KILL")
	r.soon("! dmsetup ls | grep '^stillpoint-'")
	r.must("echo more >/m/linear/more && stillpoint clean")
}

// startAlone ends a process and its guard at once, so that what they have is left, which
// goes with the start of the agent, or with the next backup. Nobody cleans.
func (r *rig) startAlone() {
	r.must("systemctl stop stillpoint-agent")
	for _, c := range []struct{ who, volumes, left, start string }{
		{"agent", "/m/linear /m/thin", "dmsetup ls | grep '^stillpoint-' && lvs --noheadings --options lv_tags | grep -i stillpoint", "systemctl start stillpoint-agent"},
		{"backup", "/m/linear /m/thin", "dmsetup ls | grep '^stillpoint-' && lvs --noheadings --options lv_tags | grep -i stillpoint", "stillpoint backup --one-file-system --cache-dir /var/tmp /m/linear /m/thin"},
		{"backup of something else", "/m/thin", "lvs --noheadings --options lv_tags | grep -i stillpoint", "stillpoint backup --provider none /etc"},
	} {
		before := r.must(showStack)
		r.must("rm -f /run/shown && systemd-run --quiet --unit=held --setenv=HOME=/root stillpoint run --cache-dir /var/tmp " + c.volumes + " -- sh -c 'touch /run/shown; exec sleep 600'")
		r.soon("test -e /run/shown")
		r.must("systemctl kill --kill-whom=all --signal=KILL held")
		r.soon("! systemctl is-active -q held")
		r.must("systemctl reset-failed held; " + c.left)
		r.must(c.start)
		r.soon("! dmsetup ls | grep '^stillpoint-' && ! lvs --noheadings --options lv_tags | grep -i stillpoint && ! losetup --noheadings -l | grep /var/tmp")
		if after := r.must(showStack); after != before {
			r.Errorf("after the start of %s there are\n%s\nand before there were\n%s", c.who, after, before)
		}
		r.must("date >/m/linear/date && date >/m/thin/date && sync")
		if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
			r.Errorf("after the start of %s are left:\n%s", c.who, out)
		}
	}
	r.must("systemctl is-active stillpoint-agent")
}

// showStack shows what is below the volumes.
const showStack = "udevadm settle && dmsetup table | sort && dmsetup info --columns --noheadings --options name,uuid,suspended | sort"

// mappedRoot moves the system to a logical volume, where nothing on / may be needed while
// that is frozen, or its table is exchanged: neither the program nor the log, nor the
// repository.
func (r *rig) mappedRoot() {
	r.toRoot()
	r.must("mkdir -p /var/busy /var/backups && stillpoint init && systemd-run --quiet --unit=busy guest busy /var/busy")
	r.soon("guest figures | grep -v '\"Payments\":0'")
	r.figures()
	out := r.mustWithin(6*time.Minute, "stillpoint backup / --cache-max 600M --require one-instant --exclude /m"+exclude)
	if !strings.Contains(out, "provider    dm") {
		r.Errorf("%s", out)
	}
	r.goesOn("backup of / on LVM")
	r.must(`stillpoint run / --cache-max 600M -- sh -ec 'test -e /var/busy/bank.sqlite; ! touch /var/new; touch /run/new' 2>/run/said || { cat /run/said >&2; exit 1; }`)
	r.goesOn("run / -- PROGRAM on LVM")
	r.must("stillpoint snapshot create / --cache-max 600M >/run/id && stillpoint snapshot mount $(cat /run/id) /mnt && test -e /mnt/etc/fstab")
	r.nextAgent("KILL")
	r.soon("! dmsetup ls | grep '^stillpoint-'")
	r.goesOn("agent ended that had a snapshot of / on LVM")
	r.must("systemctl stop busy && stillpoint verify && stillpoint clean && test -z \"$(ls /mnt)\"")
}

// toRoot copies the system to a logical volume and starts it from there, with the same
// kernel (systemd-soft-reboot.service(8)).
func (r *rig) toRoot() {
	r.mustWithin(6*time.Minute, `set -e
vgcreate -qq system "$(readlink -f /dev/disk/by-id/virtio-scratch2)"
lvcreate -qqy -L 2G -n root system
mkfs.ext4 -q /dev/system/root
mkdir -p /run/nextroot
mount /dev/system/root /run/nextroot
rsync -aAXx --exclude='/var/backups/*' --exclude='/m/*' --exclude='/usr/lib/modules/*/kernel/drivers/net' / /run/nextroot/
cat >/run/nextroot/etc/fstab <<END
/dev/system/root / ext4 defaults 0 0
/dev/disk/by-id/virtio-scratch1 /m/plain ext4 defaults 0 0
END
# It would unmount what lies on LVM.
mkdir -p /run/systemd/system/blk-availability.service.d
printf '[Service]\nExecStop=\n' >/run/systemd/system/blk-availability.service.d/stay.conf
# Who has the port open does not end by himself.
mkdir -p /run/systemd/system/stillpoint-guest.service.d
printf '[Service]\nKillSignal=SIGKILL\n' >/run/systemd/system/stillpoint-guest.service.d/kill.conf
systemctl daemon-reload
systemd-run --quiet --on-active=1s systemctl soft-reboot`)
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second) // who is asked may be ended, and not answer
		res, err := r.m.Run(ctx, "test $(findmnt -no SOURCE /) = /dev/mapper/system-root && systemctl is-system-running --wait")
		cancel()
		if err == nil && res.Code == 0 {
			return
		}
		if time.Now().After(end) {
			r.Fatalf("not there: %v %+v", err, res)
		}
	}
}
