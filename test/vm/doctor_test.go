//go:build vm

package vm_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// A state is one of the machine that doctor has something to say about, made for
// real, so that it is seen where the kernel and systemd tell it.
type state struct {
	name       string
	make, undo func(r *rig)
	finds      []finding
}

// A finding is what doctor has to say; of a wanted one, the text is in the line, and no subject is any.
type finding struct{ Check, Result, Code, Subject, Text string }

// TestDoctor makes what cannot be made on the machine that runs the tests: doctor is
// silent before, names each, and is silent again when all is as it was.
func TestDoctor(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Backports, FS: "ext4", Disks: 3}, "")
	r.sub("states", (*rig).states)
	for _, p := range pressures {
		r.sub(p.resource, p.made)
	}
	r.sub("nobody waits", func(r *rig) { r.silent("when nobody waits any more") })
}

// states makes them all, and takes them back.
func (r *rig) states() {
	r.must(groups + timeService)
	r.silent("at first")
	for _, s := range states {
		s.make(r)
	}
	found := r.doctor()
	for _, s := range states {
		for _, want := range s.finds {
			r.says(s.name, found, want)
		}
	}
	for _, s := range slices.Backward(states) {
		s.undo(r)
	}
	r.must(timeService)
	r.silent("when all is as it was")
}

func script(text string) func(*rig) { return func(r *rig) { r.Helper(); r.must("set -e\n" + text) } }

// groups makes a repository, and two volume groups, with a file system on a thin volume and one on a
// plain volume.
const groups = `set -e
mkdir -p /var/backups; stillpoint init
for g in thin plain; do
	n=0; [ $g = thin ] || n=1
	d=$(readlink -f /dev/disk/by-id/virtio-scratch$n)
	pvcreate -q $d; vgcreate -q $g $d
done
lvcreate -q -y --type thin-pool -L 200M -n pool thin
lvcreate -q -y --thin -V 300M -n data thin/pool
lvcreate -q -y -L 64M -n data plain
for g in thin plain; do
	mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/$g/data
	mkdir -p /srv/$g; mount /dev/$g/data /srv/$g
done
sync
lvcreate -q -y -s -L 16M -n before plain/data
`

// timeService says to the kernel what a service does that has set the clock: that it
// is right (adjtimex(2), struct timex: ADJ_STATUS, ADJ_MAXERROR and ADJ_ESTERROR, and
// a status without STA_UNSYNC). Who sets the time, takes it back.
const timeService = `perl -e '$timex = pack("Lx4q4lx164", 0x1c, 0, 0, 0, 0, 0); syscall(159, $timex) >= 0 or die "$!"'`

var states = []state{
	{
		// Before all others, for the clock is set in it.
		"a clock that was set back",
		script(`date -s '+2 days' >/dev/null; stillpoint backup /etc/hostname --provider none >/dev/null; date -s '-2 days' >/dev/null`),
		script(`rm -r /var/lib/stillpoint/jobs`),
		[]finding{{Check: "clock", Code: "clock-wrong", Text: "the clock was set back"}},
	},
	{
		"a thin pool that is nearly full",
		script(`i=0
while [ "$(lvs --noheadings -o data_percent thin/pool | tr -d ' ' | cut -d. -f1)" -lt 93 ]; do
	i=$((i+1)); test $i -lt 60
	dd if=/dev/zero of=/srv/thin/much$i bs=1M count=4 conv=fsync status=none
done`),
		script(`rm /srv/thin/much*; sync; fstrim /srv/thin`),
		[]finding{{Check: "lvm", Code: "pool-full", Subject: "thin/pool", Text: "the thin pool is full by "}},
	},
	{
		"a snapshot of another's that is nearly full",
		script(`dd if=/dev/zero of=/srv/plain/much bs=1M count=14 conv=fsync status=none`),
		script(`rm /srv/plain/much; lvremove -q -y plain/before`),
		[]finding{{Check: "lvm", Code: "pool-full", Subject: "plain/before", Text: "the snapshot is full by "}},
	},
	{
		"volume groups without room",
		script(`for g in thin plain; do lvcreate -q -y -l 97%FREE -n rest $g; done`),
		script(`for g in thin plain; do lvremove -q -y $g/rest; done`),
		[]finding{
			{Check: "lvm", Code: "pool-full", Subject: "thin", Text: "the volume group has "},
			{Check: "lvm", Code: "pool-full", Subject: "plain", Text: "the volume group has "},
		},
	},
	{
		"modules of other programs",
		(*rig).loadModules,
		script(`for m in dattobd blksnap veeamsnap; do rmmod $m; done`),
		[]finding{
			{Check: "others", Code: "other-snapshots", Subject: "module dattobd", Text: "of Datto"},
			{Check: "others", Code: "other-snapshots", Subject: "module blksnap", Text: "of Veeam"},
			{Check: "others", Code: "other-snapshots", Subject: "module veeamsnap", Text: "of Veeam"},
		},
	},
	{
		"timers of other programs",
		script(timers),
		script(`systemctl --quiet disable --now snapper-timeline.timer; rm /etc/cron.d/timeshift-hourly`),
		[]finding{
			{Check: "timers", Code: "other-snapshots", Subject: "/etc/systemd/system/timers.target.wants/snapper-timeline.timer", Text: "each hour"},
			{Check: "timers", Code: "other-snapshots", Subject: "/etc/cron.d/timeshift-hourly", Text: "each hour"},
		},
	},
	{
		"an agent that was stopped",
		script(`systemctl stop stillpoint-agent`),
		script(`systemctl start stillpoint-agent`),
		[]finding{{Check: "agent", Code: "no-agent", Text: "it would watch / (ext4)"}},
	},
	{
		// As the last, for what is started beside needs memory, too.
		"next to no memory",
		script(`mkdir /run/hog; mount -t tmpfs -o size=100% none /run/hog
i=0
while [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -gt $((115 * 1024)) ]; do
	i=$((i+1)); fallocate -l 8M /run/hog/$i
done`),
		script(`umount /run/hog`),
		[]finding{{Check: "cache", Code: "memory-short", Text: "MiB of memory are available"}},
	},
}

// timers are one as the package of snapper brings it, and a file as timeshift makes it.
const timers = `cat >/usr/lib/systemd/system/snapper-timeline.timer <<END
[Unit]
Description=Timeline of Snapper Snapshots
[Timer]
OnCalendar=hourly
[Install]
WantedBy=timers.target
END
printf '[Service]\nType=oneshot\nExecStart=/usr/bin/true\n' >/usr/lib/systemd/system/snapper-timeline.service
systemctl daemon-reload
systemctl --quiet enable --now snapper-timeline.timer
systemctl --quiet is-active snapper-timeline.timer
mkdir -p /etc/cron.d
echo '0 * * * * root timeshift --check --scripted' >/etc/cron.d/timeshift-hourly`

// loadModules loads modules of this very kernel under other names.
func (r *rig) loadModules() {
	r.Helper()
	for from, to := range map[string]string{"md4": "dattobd", "rmd160": "blksnap", "wp512": "veeamsnap"} {
		b, err := r.m.Read(r.Context(), r.must("modinfo -n "+from))
		if err == nil {
			b, err = renamed(b, from, to)
		}
		if err == nil {
			err = r.m.Write(r.Context(), "/run/"+to+".ko", b, 0o600)
		}
		if err != nil {
			r.Fatal(err)
		}
		r.must(fmt.Sprintf("insmod /run/%s.ko && grep '^%[1]s ' /proc/modules", to))
	}
}

// A pressure is one of what the kernel measures of how much is waited for.
type pressure struct {
	resource, text string
	make, undo     string
	level          float64 // above that from which on doctor speaks, which works meanwhile
	low            float64 // below it
}

var pressures = []pressure{
	{
		// Above its memory.high a process sleeps at each step that it grows (mem_cgroup_handle_over_high
		// in mm/memcontrol.c), so what it has grows slowly, and never to memory.max.
		"memory", "everything waited for memory",
		`systemd-run --quiet --unit=hog -p MemoryHigh=16M -p MemoryMax=64M tail /dev/zero`,
		`systemctl stop hog`,
		10, 4,
	},
	{
		"io", "everything waited for a device",
		`echo "0 65536 delay $(readlink -f /dev/disk/by-id/virtio-scratch2) 0 200" | dmsetup create slow
for i in 1 2 3 4; do systemd-run --quiet --unit=reader$i sh -c 'while dd if=/dev/mapper/slow of=/dev/null iflag=direct bs=4096; do :; done'; done`,
		`systemctl stop reader1 reader2 reader3 reader4; udevadm settle; dmsetup remove --retry slow`,
		55, 35,
	},
}

// made lets everybody wait, until the kernel says so, and doctor.
func (p pressure) made(r *rig) {
	r.must("set -e\n" + p.make)
	for end := time.Now().Add(4 * time.Minute); r.waited(p.resource) < p.level; time.Sleep(time.Second) {
		if time.Now().After(end) {
			r.Fatalf("nobody waits:\n%s", r.must("grep . /proc/pressure/*"))
		}
	}
	r.says(p.resource, r.doctor(), finding{Check: "load", Code: "host-busy", Subject: p.resource, Text: p.text})
	r.must(p.undo)
}

// waited is the share of the last minute in which nothing could go on.
func (r *rig) waited(resource string) float64 {
	r.Helper()
	share, err := strconv.ParseFloat(r.must(`sed -n 's/^full .*avg60=\([0-9.]*\) .*/\1/p' /proc/pressure/`+resource), 64)
	if err != nil {
		r.Fatal(err)
	}
	return share
}

// doctor is what it says of the whole machine.
func (r *rig) doctor() (found []finding) {
	r.Helper()
	began := time.Now()
	res := r.try("stillpoint doctor --json")
	if err := json.Unmarshal([]byte(res.Out), &found); err != nil || res.Code != 0 && res.Code != 3 {
		r.Fatalf("doctor ended with %d: %v\n%s%s", res.Code, err, res.Out, res.Err)
	}
	r.Logf("doctor took %s", time.Since(began).Round(time.Second))
	return found
}

// says fails unless a warning was found.
func (r *rig) says(when string, found []finding, want finding) {
	r.Helper()
	for _, f := range found {
		if f.Check == want.Check && f.Result == "warning" && f.Code == want.Code && (want.Subject == "" || f.Subject == want.Subject) && strings.Contains(f.Text, want.Text) {
			r.Logf("%s: %s: %s", when, f.Subject, f.Text)
			return
		}
	}
	r.Errorf("%s: %+v is not in %+v", when, want, found)
}

// silent fails if anything is found: soon, for what is measured falls by half in 42 s,
// and the agent has to see what was mounted.
func (r *rig) silent(when string) {
	r.Helper()
	end := time.Now().Add(4 * time.Minute)
	for _, p := range pressures {
		for r.waited(p.resource) > p.low && time.Now().Before(end) {
			time.Sleep(time.Second)
		}
	}
	for {
		found := r.doctor()
		loud := slices.DeleteFunc(slices.Clone(found), func(f finding) bool { return f.Result == "ok" || f.Result == "not applicable" })
		if len(found) > 0 && len(loud) == 0 {
			return
		}
		if time.Now().After(end) {
			r.Fatalf("%s doctor says %+v", when, loud)
		}
		time.Sleep(time.Second)
	}
}
