//go:build vm

package vm_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// cacheLayout makes a volume with each file system that dm takes: XFS on a linear volume
// of LVM, ext4 on a table of device-mapper's own.
const cacheLayout = `set -e
cd /dev/disk/by-id
vgcreate -qq data "$(readlink -f virtio-scratch0)"
lvcreate -qqy -L 800M -n linear data
dmsetup create plain --table "0 1638400 linear $(readlink -f virtio-scratch1) 2048"
mkfs.xfs -q /dev/data/linear
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/mapper/plain
mkdir -p /m/linear /m/plain /var/backups
mount /dev/data/linear /m/linear
mount /dev/mapper/plain /m/plain
cp -a /etc /m/linear
cp -a /etc /m/plain
stillpoint init
`

// A flood is a backup while much is written.
type flood struct {
	dir     string // of the volume
	file    int64  // MiB that are written over and over
	maximum int64  // MiB of the cache file
	full    bool   // that has no room for them all
}

// TestCacheFile lets a program write three times the size of the cache file while a
// backup goes on: either the backup is complete, or its cache file is full, which it says.
// Who writes never has an error, and waits for nobody.
func TestCacheFile(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Trixie, FS: "ext4", Disks: 2, DiskMB: 2048}, "faults")
	r.must(cacheLayout)
	for _, f := range []flood{
		{"/m/linear", 40, 100, false},
		{"/m/linear", 120, 50, true},
		{"/m/plain", 40, 100, false},
		{"/m/plain", 120, 50, true},
	} {
		name := strings.TrimPrefix(f.dir, "/m/") + " enough"
		if f.full {
			name = strings.TrimPrefix(f.dir, "/m/") + " full"
		}
		r.sub(name, func(r *rig) { r.flooded(f) })
	}
	r.must("! dmsetup ls | grep -i stillpoint && ! losetup --noheadings -l | grep .")
	if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
		r.Errorf("left are:\n%s", out)
	}
}

// A floodReport is what is looked at of the report.
type floodReport struct {
	Job, Status, Code, Text string
	Volumes                 []struct {
		Provider string
		Hold     float64 `json:"hold_ms"`
		Cache    struct {
			Dir           string
			Used, Maximum int64
		}
	}
}

func (r *rig) flooded(f flood) {
	r.must(fmt.Sprintf("systemd-run --quiet --unit=churn guest churn %s/churn %d", f.dir, f.file))
	defer r.try("systemctl stop churn")
	r.soon("guest figures | grep -v '\"Payments\":0'")
	before := r.figures()
	began := time.Now()
	r.must("rm -f /run/code")
	r.backUpTo("backup:captured", fmt.Sprintf("stillpoint backup --json --retry 0 --provider dm --cache-dir /var/tmp --cache-max %dM %s >/run/report 2>/run/said; echo $? >/run/code", f.maximum, f.dir))
	longest := r.figures()
	r.Logf("captured after %.1f s; until then a write took %.0f ms at the most, a sync %.0f ms", time.Since(began).Seconds(), longest.LongestMS, longest.SyncMS)
	wanted := longest.Records + 3*f.maximum<<20/(64<<10) // pieces
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Second) {
		now := r.figures()
		longest = longer(longest, now)
		if now.Records >= wanted {
			break
		}
		if time.Now().After(end) {
			r.Fatalf("only %d of %d pieces are written; %s", now.Records-before.Records, wanted-before.Records, r.try("systemctl status churn").Out)
		}
	}
	r.Logf("%d MiB are written after %.1f s", 3*f.maximum, time.Since(began).Seconds())
	r.must("rm /run/reached")
	r.soon("test -s /run/code")
	last := r.figures()
	longest = longer(longest, last)
	r.must("systemctl is-active churn") // no error came to who writes
	r.goesOnWith("a backup with "+fmt.Sprint(f.maximum)+" MiB for originals", longest)
	r.Logf("%.1f s in all, %d MiB written", time.Since(began).Seconds(), (last.Records-before.Records)/16)
	if longest.LongestMS > mostWaitMS || longest.SyncMS > mostWaitMS {
		r.Errorf("a write took %.0f ms, and a sync %.0f ms", longest.LongestMS, longest.SyncMS)
	}
	r.must("systemctl stop churn && test $(systemctl show --property=Result --value churn) = success")
	r.floodSaid(f)
}

// mostWaitMS is what is promised of real hardware; this machine keeps it, too, as it has
// but little to write before it can freeze.
const mostWaitMS = 1000

func longer(a, b figures) figures {
	if b.LongestMS > a.LongestMS {
		a.LongestMS, a.LongestAt = b.LongestMS, b.LongestAt
	}
	a.SyncMS = max(a.SyncMS, b.SyncMS)
	a.Records, a.Payments = b.Records, b.Payments
	return a
}

// lostAt is the line of a log that says when the cache file was full.
var lostAt = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*: the cache file has reached its maximum of \d+ MiB \[cache-full\]$`)

// floodSaid looks at what the backup says.
func (r *rig) floodSaid(f flood) {
	r.Helper()
	out := r.must("cat /run/report")
	var got floodReport
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Volumes) != 1 {
		r.Fatalf("%v: %s %s", err, out, r.must("cat /run/said"))
	}
	v := got.Volumes[0]
	code := r.must("cat /run/code")
	r.Logf("it ended with %s, %s %s: %s; held %.0f ms, cache file %+v", code, got.Status, got.Code, got.Text, v.Hold, v.Cache)
	log := r.must("stillpoint job log " + got.Job)
	if v.Provider != "dm" || v.Cache.Dir != "/var/tmp" || v.Cache.Maximum != f.maximum<<20 || v.Hold <= 0 {
		r.Errorf("the report is\n%s", out)
	}
	if f.full {
		if code != "1" || got.Status != "failed" || got.Code != "cache-full" || v.Cache.Used <= f.maximum<<20*9/10 || v.Cache.Used > f.maximum<<20 {
			r.Errorf("the report is\n%s", out)
		}
		if at := lostAt.FindStringSubmatch(log); at == nil || !strings.Contains(log, "Volume "+f.dir+"\n") {
			r.Errorf("it does not say which volume was lost and when:\n%s", log)
		}
		return
	}
	if code != "0" || got.Status != "complete" || v.Cache.Used < f.file<<20 || v.Cache.Used > f.maximum<<20 {
		r.Errorf("the report is\n%s%s", out, log)
	}
	r.mustWithin(4*time.Minute, "rm -rf /var/restored && stillpoint restore latest:"+f.dir+" --to /var/restored && diff -r --no-dereference "+f.dir+"/etc /var/restored"+f.dir+"/etc")
	r.Logf("%s", r.must("guest churned /var/restored"+f.dir+"/churn"))
}
