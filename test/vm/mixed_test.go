//go:build vm

package vm_test

import (
	"encoding/json"
	"math"
	"path"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/test/vm"
)

// mixedLayout makes a volume of each kind that is held while a set is taken, or takes
// its own instant: LVs of one volume group, LUKS on one, btrfs on one and on disks.
const mixedLayout = `
cd /dev/disk/by-id
vgcreate -qq data "$(readlink -f virtio-scratch0)"
lvcreate -qqy -L 400M -n linear data
lvcreate -qqy -L 400M -n classic data
lvcreate -qqy -L 400M -n crypt data
lvcreate -qqy -L 400M -n mapped data
lvcreate -qqy -L 800M -T data/pool
lvcreate -qqy -V 400M -n thin --thinpool pool data
printf secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/data/crypt -
printf secret | cryptsetup open --disable-keyring --key-file - /dev/data/crypt inner
mkfs.ext4 -q /dev/data/linear
mkfs.xfs -q /dev/data/classic
mkfs.xfs -q /dev/mapper/inner
mkfs.ext4 -q /dev/data/thin
mkfs.btrfs -q /dev/data/mapped
mkfs.btrfs -q "$(readlink -f virtio-scratch1)"
mkfs.btrfs -q "$(readlink -f virtio-scratch2)"
mkdir -p /m/linear /m/classic /m/crypt /m/thin /m/mapped /m/btrfs /m/btrfs2 /var/backups
mount /dev/data/linear /m/linear
mount /dev/data/classic /m/classic
mount /dev/mapper/inner /m/crypt
mount /dev/data/thin /m/thin
mount /dev/data/mapped /m/mapped
mount virtio-scratch1 /m/btrfs
mount virtio-scratch2 /m/btrfs2
`

// mixedProviders are those that are to take them, by themselves or by name.
var mixedProviders = map[string]string{"linear": "dm", "classic": "lvm", "crypt": "dm", "thin": "lvm", "mapped": "btrfs", "btrfs": "btrfs", "btrfs2": "btrfs", "zfs": "zfs"}

// A mixedSet is a backup of several volumes.
type mixedSet struct {
	names []string // below /m
	one   bool     // is to be of one instant
	named bool
}

// TestMixed takes sets of volumes of several kinds at one instant where all but one
// of them can be held, while a program writes numbers to each in turn.
func TestMixed(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Trixie, FS: "ext4", Disks: 3, DiskMB: 3072}, "")
	r.must(mixedLayout + "stillpoint init")
	for _, s := range []mixedSet{
		{[]string{"linear", "crypt"}, true, false},
		{[]string{"linear", "thin", "crypt"}, true, true},
		{[]string{"classic", "crypt", "linear"}, true, true},
		{[]string{"classic", "thin", "btrfs", "crypt"}, true, true},
		{[]string{"linear", "btrfs", "thin"}, true, false},
		{[]string{"btrfs", "crypt"}, true, false},
		{[]string{"mapped"}, true, false},
		{[]string{"linear", "mapped", "thin"}, true, false},
		{[]string{"btrfs", "btrfs2"}, false, false},
		{[]string{"mapped", "btrfs"}, false, false},
	} {
		r.sub(strings.Join(s.names, " "), func(r *rig) { r.mixed(s) })
	}
	r.must("! dmsetup ls | grep -i stillpoint && ! lvs --noheadings -o lv_tags | grep -i stillpoint && ! losetup --noheadings -l | grep .")
	if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
		r.Errorf("left are:\n%s", out)
	}
}

// mixedReport is what is looked at of a report.
type mixedReport struct {
	Job        string
	OneInstant bool       `json:"one_instant"`
	Skew       job.Millis `json:"skew_ms"`
	Volumes    []struct {
		Mounts     []string
		Provider   string
		Instant    time.Time
		OneInstant bool       `json:"one_instant"`
		Skew       job.Millis `json:"skew_ms"`
	}
}

func (r *rig) mixed(s mixedSet) {
	dirs, named := "/m/"+strings.Join(s.names, " /m/"), ""
	for _, name := range s.names {
		if of := mixedProviders[name]; s.named {
			named += " --provider /m/" + name + "=" + of
		}
	}
	r.must("systemd-run --quiet --unit=rounds guest rounds " + dirs)
	defer r.try("systemctl stop rounds")
	r.soon("test -s /m/" + s.names[len(s.names)-1] + "/counter")
	for range 3 {
		require := ""
		if s.one {
			require = " --require one-instant"
		}
		var got mixedReport
		// On a busy host an emulated machine may need more than the window.
		out := r.must("stillpoint backup --json --retry 5 --retry-wait 2s --cache-dir /var/tmp" + named + require + " " + dirs)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			r.Fatalf("%v: %s", err, out)
		}
		for _, v := range got.Volumes {
			if want := mixedProviders[path.Base(v.Mounts[0])]; v.Provider != want {
				r.Errorf("%s is taken by %s, not by %s", v.Mounts[0], v.Provider, want)
			}
		}
		if len(got.Volumes) != len(s.names) || got.OneInstant != s.one {
			r.Errorf("%d volumes, of one instant: %v\n%s", len(got.Volumes), got.OneInstant, out)
		}
		r.saysInstants(got)
		if !s.one {
			continue
		}
		r.must("rm -rf /var/restored && stillpoint restore latest --to /var/restored")
		r.Logf("%s", r.must("cd /var/restored && guest ordered ./m/"+strings.Join(s.names, " ./m/")))
	}
	if !s.one {
		// What shows two instants says so to people, too.
		if out := r.must("stillpoint backup --cache-dir /var/tmp " + dirs); !strings.Contains(out, "not of one instant: first and last lie ") {
			r.Errorf("not said to people:\n%s", out)
		}
		if res := r.try("stillpoint backup --require one-instant " + dirs); res.Code != 1 || !strings.Contains(res.Err+res.Out, "not-one-instant") {
			r.Errorf("one instant demanded: %d %s%s", res.Code, res.Out, res.Err)
		}
	}
}

// saysInstants looks at what a report says of instants: each volume's, whether they are
// one, and else how far they lie apart.
func (r *rig) saysInstants(got mixedReport) {
	r.Helper()
	var first, last time.Time
	for _, v := range got.Volumes {
		if v.Instant.IsZero() || !v.OneInstant || v.Skew != 0 {
			r.Errorf("%s: %+v", v.Mounts, v)
		}
		if first.IsZero() || v.Instant.Before(first) {
			first = v.Instant
		}
		if v.Instant.After(last) {
			last = v.Instant
		}
	}
	apart := last.Sub(first)
	r.Logf("of one instant: %v, %s apart, of %s", got.OneInstant, apart, time.Duration(got.Skew))
	switch {
	case got.OneInstant && got.Skew != 0:
		r.Errorf("one instant, and %s between the first and the last", time.Duration(got.Skew))
	case !got.OneInstant && (apart == 0 || time.Duration(got.Skew).Round(time.Microsecond) != apart.Round(time.Microsecond)):
		r.Errorf("%s lie between the first and the last, and it says %s", apart, time.Duration(got.Skew))
	}
	const rounded = 0.0011
	if ms := r.recordedSkew(got.Job); math.Abs(ms-float64(got.Skew)/float64(time.Millisecond)) > rounded {
		r.Errorf("the backup has %v ms between its instants, and the report %s", ms, time.Duration(got.Skew))
	}
}

// recordedSkew is what the repository says of it, of the backup of a job.
func (r *rig) recordedSkew(job string) float64 {
	r.Helper()
	var all []struct {
		ID     string
		SkewMS *float64 `json:"skew_ms"`
	}
	out := r.must("stillpoint backups --json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	for _, b := range all {
		if b.ID == job && b.SkewMS != nil {
			return *b.SkewMS
		}
	}
	r.Fatalf("no backup of job %s:\n%s", job, out)
	return 0
}
