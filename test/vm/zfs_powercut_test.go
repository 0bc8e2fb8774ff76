//go:build vm && zfs

package vm_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/test/vm"
)

// zfsBackup is a backup of all of the pool.
const zfsBackup = "stillpoint backup --retry 5 --retry-wait 2s /tank"

// zfsLayout makes a pool with other people's snapshots in it, one of which looks like ours.
const zfsLayout = `set -e
zpool create -O mountpoint=/tank tank "$(readlink -f /dev/disk/by-id/virtio-scratch0)"
zfs create tank/busy && zfs create 'tank/My Media' && zfs create -o mountpoint=/tank/busy/deep tank/deep
cp -a /etc '/tank/My Media' && cp /etc/fstab /tank/busy/deep
zfs snapshot -r tank@daily
zfs snapshot tank/busy@stillpoint-20200101T000000
zfs hold theirs tank/busy@daily
mkdir -p /var/backups && stillpoint init
zpool sync tank && sync`

// showPool shows what is in it, and where it is mounted.
const showPool = `set -e
zfs list -H -t filesystem,snapshot -o name,guid,mounted,userrefs
zfs get -H -s local -o name,property,value all | sort
zfs holds -H -r tank@daily tank/busy@daily | cut -f 1,2
grep ' zfs ' /proc/self/mounts | sort`

// TestZFSPowerCut is TestPowerCut of a pool: "make test-zfs" runs it.
func TestZFSPowerCut(t *testing.T) {
	kernel := cmp.Or(os.Getenv("STILLPOINT_VM_KERNEL"), vm.Trixie)
	o := vm.Options{Kernel: kernel, FS: "ext4", Disks: 1, Files: []vm.File{patientAgent(t)}}
	r := newRigWith(t, o, "faults", func(ctx context.Context, im *vm.Image, o *vm.Options) error {
		files, err := im.ZFS(ctx, kernel)
		o.Files = append(o.Files, files...)
		return err
	})
	p := &pool{power: power{rig: r, dirs: "/tank/busy", backup: zfsBackup}}
	r.Logf("%s", r.must(vm.StartZFS))
	r.must(zfsLayout)
	p.before = r.must(showPool)
	r.Logf("in the pool are\n%s", p.before)
	for i, point := range slices.Concat([]string{"capture:prepared"}, fault.OfZFS, []string{"repository:recorded"}) {
		r.sub(point, func(r *rig) { p.rig = r; p.at(point, i%2 == 0) })
	}
	// The beginning of a record may be one that is just written, until it is a minute old.
	r.soon("stillpoint clean --dry-run >/dev/null; test -z \"$(ls -A /var/lib/stillpoint/zfs)\"")
}

// A pool is the test's, with what it had before the power was cut.
type pool struct {
	power
	before string // see showPool
}

// leaves says of which steps a snapshot is left for certain.
var leaves = []string{"zfs:snapshots-made", "zfs:snapshots-recorded", "zfs:mounted", "zfs:releasing"}

// at cuts the power when a backup is at a step. After the next start the pool is imported
// as it is, with all that was safe, and what is left goes with the next backup or before.
func (p *pool) at(point string, alone bool) {
	p.write()
	p.stopAt(point)
	p.m.Cut()
	safe := p.writer.end()
	p.start()
	p.must(vm.StartZFS)
	if point == "zfs:snapshots-recorded" || point == "zfs:mounted" {
		p.Logf("before the pool is there: %s", p.try("stillpoint clean").Out) // it must not be forgotten what is in it
	}
	p.must("zpool import -d /dev/disk/by-id tank")
	for dir, n := range safe {
		p.Logf("%s", p.must(fmt.Sprintf("guest safe %s %d", dir, n)))
	}
	out := p.must("stillpoint clean --dry-run --json; test $? = 3")
	if left := strings.Contains(out, `"what": "snapshot"`); slices.Contains(leaves, point) && !left {
		p.Errorf("no snapshot is left:\n%s", out)
	}
	if alone {
		p.mustWithin(4*time.Minute, zfsBackup)
	} else {
		p.must("stillpoint clean; test $? = 3") // what is foreign stays
	}
	p.asBefore("when nothing is to be left")
	p.must("zpool scrub -w tank && zpool status -x tank | grep -q \"pool 'tank' is healthy\" || { zpool status -v tank; false; }")
	p.mustWithin(4*time.Minute, zfsBackup+" && stillpoint verify && zpool sync tank")
	p.asBefore("after the next backup")
}

// asBefore wants what was in the pool, and nothing else.
func (p *pool) asBefore(when string) {
	p.Helper()
	p.same(when, p.before, showPool)
	if out := p.must("stillpoint clean --dry-run --json; test $? = 3"); strings.Count(out, `"what"`) != 1 || !strings.Contains(out, "leftover-foreign") {
		p.Errorf("%s are left:\n%s", when, out)
	}
	if out := p.must("ls -A /var/lib/stillpoint/zfs | grep -v '[.]part$' || true"); out != "" {
		p.Errorf("%s there are records:\n%s", when, out)
	}
}
