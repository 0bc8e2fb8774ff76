//go:build vm

package vm_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/test/vm"
)

// ofLVM are the steps of the provider of LVM, which package fault does not list, and
// whether a power cut there leaves a logical volume for certain.
var ofLVM = map[string]bool{
	"lvm:place-made": true, "lvm:place-emptied": true, "lvm:room-made": true, "lvm:snapshot-taken": true, "lvm:activated": true,
	"lvm:mounted": true, "lvm:releasing": true, "lvm:removed": false, "lvm:room-removed": false,
}

// ways are those in which what a backup has left goes, in turn: the next backup alone, or
// "stillpoint clean".
var ways = []func(*power){(*power).nextBackup, (*power).clean}

// TestPowerCut takes the power of a machine whose volumes lie on all that a server has
// below its file systems, while they are backed up and written to. After the next boot
// each is where it was, whole, with all that the disk had said to have.
//
// STILLPOINT_TEST_CUTS says how many cuts come at moments of chance, and lets one come
// at each step of a backup; without it there are two at steps, and one by chance.
func TestPowerCut(t *testing.T) {
	for _, kernel := range vm.Kernels {
		t.Run(kernel, func(t *testing.T) { powerCuts(t, kernel) })
	}
}

func powerCuts(t *testing.T, kernel string) {
	o := vm.Options{Kernel: kernel, FS: "ext4", Disks: 5, DiskMB: 2048, Files: []vm.File{patientAgent(t)}}
	r := newRigWith(t, o, "faults")
	p := &power{rig: r, dirs: volumes, backup: backup}
	r.sub("layout", func(r *rig) { p.with(r).layout() })
	cuts, points := 1, []string{"capture:taken", "lvm:place-emptied"}
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_CUTS")); err == nil {
		cuts, points = n, p.points()
	}
	for i, point := range points {
		r.sub(point, func(r *rig) { p.with(r).at(point, ways[i%len(ways)]) })
	}
	for i := range cuts {
		r.sub(fmt.Sprint("chance", i+1), func(r *rig) { p.with(r).chance(ways[(i+1)%len(ways)]) })
	}
}

// patientAgent lets systemd wait for the agent: here is nothing to be shown of how fast
// it is, and an emulated machine may be slow.
func patientAgent(t *testing.T) vm.File {
	file := filepath.Join(t.TempDir(), "patient.conf")
	if err := os.WriteFile(file, []byte("[Service]\nTimeoutStartSec=3min\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return vm.File{Path: "/etc/systemd/system/stillpoint-agent.service.d/patient.conf", From: file}
}

// A power is the test's machine, with what it had before its power was cut.
type power struct {
	*rig
	dirs    string        // where the ledgers are
	backup  string        // the command of one
	took    time.Duration // for a backup that nobody ends
	mounts  string        // what was where, see showMounts
	devices string        // and below that, see showDevices
	writer  *acknowledged // who writes now, or did
}

// with is p for a part of the test.
func (p *power) with(r *rig) *power { p.rig = r; return p }

// points are the steps of a backup at which it can be stopped.
func (p *power) points() []string {
	all := slices.Concat(fault.Points, fault.DM, slices.Sorted(maps.Keys(ofLVM)))
	return slices.DeleteFunc(all, func(point string) bool { return strings.HasPrefix(point, "restore:") })
}

// layout makes the volumes, looks how they come back, and who backs them up.
func (p *power) layout() {
	p.mustWithin(5*time.Minute, layoutScript)
	p.m.Cut()
	p.start()
	p.mounts, p.devices = p.must(showMounts), p.must(showDevices)
	p.Logf("the volumes are\n%s\n%s", p.mounts, p.devices)
	p.Logf("%s", p.must("stillpoint providers"))
	p.must("mkdir -p /var/backups && stillpoint init")
	p.write()
	began := time.Now()
	p.Logf("%s", p.mustWithin(5*time.Minute, backup))
	p.took = time.Since(began)
	p.rest()
}

// at cuts the power when a backup is at a step.
func (p *power) at(point string, gone func(*power)) {
	p.write()
	p.stopAt(point)
	p.cut()
	if ofLVM[point] {
		p.Logf("%s", p.soon(someLeft))
	}
	p.recover(gone)
}

// stopAt lets a backup come to a step. Where the host is busy one may fail before,
// because its volumes could not come to rest in time; that is not what is looked at here.
func (p *power) stopAt(point string) {
	for try := 1; ; try++ {
		p.backUp("STILLPOINT_FAULT=wait:"+point, "STILLPOINT_FAULT_REACHED=/run/reached")
		res := p.long(3*time.Minute, reached)
		if res.Code == 0 {
			return
		}
		p.Logf("it ended before that: %s", res.Err)
		if try == 3 {
			p.Fatal("no backup came there")
		}
	}
}

// chance cuts it at any moment of one.
func (p *power) chance(gone func(*power)) {
	p.write()
	p.backUp()
	after := rand.N(p.took)
	time.Sleep(after)
	p.Logf("%.1f s after the beginning; a whole one takes %.1f s", after.Seconds(), p.took.Seconds())
	p.cut()
	p.recover(gone)
}

// backUp begins a backup.
func (p *power) backUp(env ...string) {
	p.must("rm -f /run/reached; systemd-run --quiet --collect --unit=backup --setenv=STILLPOINT_REPO=$STILLPOINT_REPO --setenv=STILLPOINT_PASSWORD=\"$STILLPOINT_PASSWORD\" --setenv=HOME=/root " +
		"env " + strings.Join(env, " ") + " " + p.backup)
}

// cut takes the power and wants all back that was safe.
func (p *power) cut() {
	p.m.Cut()
	safe := p.writer.end()
	p.start()
	p.same("after the cut", p.mounts, showMounts)
	for dir, n := range safe {
		p.Logf("%s", p.must(fmt.Sprintf("guest safe %s %d", dir, n)))
	}
}

// recover lets go what is left of the backup, and looks at what was not.
func (p *power) recover(gone func(*power)) {
	out := p.must("stillpoint clean --dry-run --json")
	if strings.Contains(out, `"what": "foreign"`) || strings.Count(out, `"what": "job"`) > 1 {
		p.Errorf("left are:\n%s", out)
	}
	gone(p)
	if out := p.must("stillpoint clean --dry-run --json"); out != "[]" {
		p.Errorf("still left are:\n%s", out)
	}
	p.all("when nothing is to be left")
	p.mustWithin(4*time.Minute, whole)
	p.mustWithin(6*time.Minute, backup+" && stillpoint verify")
	p.all("after the next backup")
}

// nextBackup is what a server does that nobody looks after.
func (p *power) nextBackup() { p.mustWithin(6*time.Minute, backup) }

// clean is what somebody may do before.
func (p *power) clean() { p.must("stillpoint clean") }

// all wants all that was there in the beginning, and nothing else.
func (p *power) all(when string) {
	p.Helper()
	p.same(when, p.mounts, showMounts)
	p.same(when, p.devices, showDevices)
	p.nothingLeft()
}

// same wants that a script prints what it did before.
func (p *power) same(when, before, script string) {
	p.Helper()
	if now := p.must(script); now != before {
		p.Errorf("%s there are\n%s\nand before there were\n%s", when, now, before)
	}
}

// write lets the ledgers write until the power is gone, or rest.
func (p *power) write() {
	p.writer = &acknowledged{safe: map[string]int64{}, done: make(chan struct{})}
	ctx, m, w, dirs := p.Context(), p.m, p.writer, p.dirs
	go func() {
		defer close(w.done)
		_, w.err = m.Stream(context.WithoutCancel(ctx), "echo $$ >/run/ledger.pid && exec guest ledger "+dirs, w, os.Stderr)
	}()
	for end := time.Now().Add(2 * time.Minute); w.volumes() < len(strings.Fields(dirs)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatal("the ledgers are not written")
		}
	}
}

// rest ends write.
func (p *power) rest() {
	p.must("kill $(cat /run/ledger.pid)")
	p.writer.end()
	if p.writer.err != nil {
		p.Error(p.writer.err)
	}
}
