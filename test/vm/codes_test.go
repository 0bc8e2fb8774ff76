//go:build vm

package vm_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// TestCodes provokes the codes that need device-mapper by real causes, through the
// command line: the tests of cmd/stillpoint, which do so with all others, run on kernels
// that may not have it. TestZFS does it for ZFS.
func TestCodes(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Trixie, FS: "ext4", Disks: 2, DiskMB: 2048}, "")
	r.must(`set -e
cd /dev/disk/by-id
vgcreate -qq data "$(readlink -f virtio-scratch0)"
lvcreate -qqy -L 200M -n linear data
lvcreate -qqy -L 400M -T data/pool
lvcreate -qqy -V 800M -n thin --thinpool pool data
mkfs.ext4 -q /dev/data/linear && mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/data/thin # nothing is written later
mkdir -p /m/linear /m/thin /var/backups
mount /dev/data/linear /m/linear && mount /dev/data/thin /m/thin
cp /etc/fstab /m/linear && cp /etc/fstab /m/thin && sync
stillpoint init && stillpoint backup /m/linear /m/thin`)
	r.sub("device-suspended", func(r *rig) {
		r.must("cat /m/linear/* > /dev/null 2>&1; dmsetup suspend --nolockfs data-linear")
		r.endsWith("device-suspended", "--provider dm /m/linear")
		r.must("dmsetup resume data-linear && touch /m/linear/later && stillpoint backup /m/linear")
	})
	r.sub("lvm-stuck", func(r *rig) {
		// Not at the disk's beginning: it would look like the disk itself.
		r.must(`set -e
dmsetup create under --table "0 409600 linear $(readlink -f /dev/disk/by-id/virtio-scratch1) 2048"
vgextend -qqy data /dev/mapper/under
dmsetup suspend under`)
		r.endsWith("lvm-stuck", "--provider lvm /m/thin")
		r.must("touch /m/thin/meanwhile && dmsetup resume under")
		r.soon("vgreduce -qqy data /dev/mapper/under && dmsetup remove under && stillpoint backup /m/thin")
	})
	r.sub("pool-full", func(r *rig) {
		r.must(`set -e
dd if=/dev/zero of=/m/thin/much bs=1M count=300 conv=fsync status=none
while [ "$(lvs --noheadings --nosuffix -o data_percent data/pool | cut -d. -f1)" -lt 95 ]; do
	dd if=/dev/zero of=/m/thin/much bs=1M count=4 oflag=append conv=notrunc,fsync status=none
done`)
		r.endsWith("pool-full", "--provider lvm /m/thin")
		r.must("rm /m/thin/much && sync")
		r.soon("fstrim /m/thin && stillpoint backup --provider lvm /m/thin") // the pool is told when ext4 has committed
	})
	if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
		r.Errorf("left are:\n%s", out)
	}
}

// endsWith wants a backup to fail with a code, in its report and in the last line of its
// log.
func (r *rig) endsWith(code, args string) {
	r.Helper()
	res := r.long(6*time.Minute, "stillpoint backup --json --retry 0 "+args)
	var got struct{ Job, Status, Code string }
	if err := json.Unmarshal([]byte(res.Out), &got); err != nil {
		r.Fatalf("%v: %s%s", err, res.Out, res.Err)
	}
	if res.Code != 1 || got.Status != "failed" || got.Code != code {
		r.Errorf("it ends with %d, %+v: %s", res.Code, got, res.Err)
	}
	r.logEndsWith(code, got.Job)
}

func (r *rig) logEndsWith(code, job string) {
	r.Helper()
	if last := r.must("stillpoint job log " + job + " | tail -n 1"); !strings.Contains(last, code) {
		r.Errorf("the log's last line is %q", last)
	}
}
