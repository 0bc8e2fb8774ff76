//go:build vm

package vm_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/test/vm"
)

// TestPowerCut takes the power of a machine whose volumes lie on all that a server has
// below its file systems, while they are backed up and written to. After the next boot
// each is where it was, whole, with all that the disk had said to have.
//
// STILLPOINT_TEST_CUTS says how many cuts come at moments of chance, and lets one come
// at each step of a backup; without it there are one of each kind. The kernel is that
// of STILLPOINT_VM_KERNEL.
func TestPowerCut(t *testing.T) {
	o := vm.Options{Kernel: cmp.Or(os.Getenv("STILLPOINT_VM_KERNEL"), vm.Backports), FS: "ext4", Disks: 3, DiskMB: 2048}
	r := newRigWith(t, o, "faults")
	p := &power{rig: r}
	r.sub("layout", func(r *rig) { p.with(r).layout() })
	cuts, points := 1, []string{"capture:taken"}
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_CUTS")); err == nil {
		cuts, points = n, p.points()
	}
	for _, point := range points {
		r.sub(point, func(r *rig) { p.with(r).at(point) })
	}
	for i := range cuts {
		r.sub(fmt.Sprint("chance", i+1), func(r *rig) { p.with(r).chance() })
	}
}

// A power is the test's machine, with what it had before its power was cut.
type power struct {
	*rig
	provider string
	took     time.Duration // for a backup that nobody ends
	before   string        // its block devices and volumes, see showDevices
	writer   *acknowledged // nil while nobody writes
}

// with is p for a part of the test.
func (p *power) with(r *rig) *power { p.rig = r; return p }

// points are the steps of a backup at which it can be stopped.
func (p *power) points() []string {
	return slices.DeleteFunc(slices.Clone(fault.Points), func(point string) bool {
		part, _, _ := strings.Cut(point, ":")
		return !slices.Contains([]string{"backup", "capture", "repository", p.provider}, part)
	})
}

// layout makes the volumes, and finds out how they are backed up.
func (p *power) layout() {
	p.mustWithin(5*time.Minute, layoutScript)
	p.mustWithin(4*time.Minute, "systemctl daemon-reload && systemctl start plain systemd-cryptsetup@crypt && mount -a && systemctl restart stillpoint-agent")
	p.before = p.must(showDevices)
	p.Logf("the volumes are\n%s", p.before)
	out := p.must("stillpoint providers " + volumes + " 2>&1; true")
	p.Logf("%s", out)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); p.provider == "" && len(f) > 1 && f[1] == "chosen" {
			p.provider = f[0]
		}
	}
	if p.provider == "" {
		p.Fatal("no provider takes them")
	}
	p.must("mkdir -p /var/backups && stillpoint init")
	p.write()
	began := time.Now()
	p.mustWithin(4*time.Minute, "stillpoint backup "+volumes)
	p.took = time.Since(began)
	p.rest()
}

// at cuts the power when a backup is at a step.
func (p *power) at(point string) {
	p.write()
	p.backUp("STILLPOINT_FAULT=wait:"+point, "STILLPOINT_FAULT_REACHED=/run/reached")
	p.mustWithin(3*time.Minute, "until test -e /run/reached; do systemctl is-active -q backup || { echo it ended before "+point+" >&2; exit 1; }; sleep 0.02; done")
	p.cut()
}

// chance cuts it at any moment of one.
func (p *power) chance() {
	p.write()
	p.backUp()
	after := rand.N(p.took)
	time.Sleep(after)
	p.Logf("%.1f s after the beginning; a whole one takes %.1f s", after.Seconds(), p.took.Seconds())
	p.cut()
}

// backUp begins a backup.
func (p *power) backUp(env ...string) {
	p.must("rm -f /run/reached; systemd-run --quiet --collect --unit=backup --setenv=STILLPOINT_REPO=$STILLPOINT_REPO --setenv=STILLPOINT_PASSWORD=\"$STILLPOINT_PASSWORD\" --setenv=HOME=/root " +
		"env " + strings.Join(env, " ") + " stillpoint backup " + volumes)
}

// cut takes the power and wants all back.
func (p *power) cut() {
	p.m.Cut()
	safe := p.writer.end()
	p.start()
	p.same("after the cut")
	for dir, n := range safe {
		p.Logf("%s", p.must(fmt.Sprintf("guest safe %s %d", dir, n)))
	}
	if len(safe) < len(strings.Fields(volumes)) {
		p.Errorf("not all were written to: %v", safe)
	}
	p.clean()
	p.mustWithin(4*time.Minute, whole)
	p.mustWithin(5*time.Minute, "stillpoint backup "+volumes+" && stillpoint verify")
	p.same("after the next backup")
	p.nothingLeft()
}

// clean wants that what is left of the backup is found, and goes, and nothing else.
func (p *power) clean() {
	out := p.must("stillpoint clean --dry-run --json")
	if strings.Contains(out, `"what": "foreign"`) || strings.Count(out, `"what": "job"`) > 1 {
		p.Errorf("left are:\n%s", out)
	}
	p.must("stillpoint clean")
	if out := p.must("stillpoint clean --dry-run --json"); out != "[]" {
		p.Errorf("left after clean:\n%s", out)
	}
	p.same("after clean")
	p.nothingLeft()
}

// same wants the block devices and volumes that were there in the beginning.
func (p *power) same(when string) {
	p.Helper()
	if now := p.must(showDevices); now != p.before {
		p.Errorf("%s there are\n%s\nand before there were\n%s", when, now, p.before)
	}
}

// write lets the ledgers write until the power is gone, or rest.
func (p *power) write() {
	p.writer = &acknowledged{safe: map[string]int64{}, done: make(chan struct{})}
	ctx, m, w := p.Context(), p.m, p.writer
	go func() {
		defer close(w.done)
		_, w.err = m.Stream(context.WithoutCancel(ctx), "echo $$ >/run/ledger.pid && exec guest ledger "+volumes, w, os.Stderr)
	}()
	for end := time.Now().Add(time.Minute); w.volumes() < len(strings.Fields(volumes)); time.Sleep(20 * time.Millisecond) {
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
