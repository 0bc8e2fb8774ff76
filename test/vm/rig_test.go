//go:build vm

package vm_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// A rig is a machine with the product in it, as packaging/ installs it.
type rig struct {
	*testing.T
	m *vm.Machine
}

// env says where the repository is: on the volume that is backed up, as on a server
// with one disk.
const env = "export STILLPOINT_REPO=/var/backups/repo STILLPOINT_PASSWORD='only a test'\n"

// newRig makes one; more may change what machine it is.
func newRig(t *testing.T, kernel, fs string, more ...func(context.Context, *vm.Image, *vm.Options) error) *rig {
	t.Helper()
	return newRigWith(t, vm.Options{Kernel: kernel, FS: fs}, "", more...)
}

// newRigWith makes one with a product that was built with tags.
func newRigWith(t *testing.T, o vm.Options, tags string, more ...func(context.Context, *vm.Image, *vm.Options) error) *rig {
	t.Helper()
	began := time.Now()
	// An image is made once, from the archive's packages.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	im, err := vm.OpenImage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = im.Close() })
	dir := t.TempDir()
	files, err := vm.BuildGuest(ctx, dir)
	if err == nil {
		err = vm.BuildTagged(ctx, dir, tags, "stillpoint/cmd/stillpoint")
	}
	if err != nil {
		t.Fatal(err)
	}
	files = append(append(files, o.Files...), vm.File{Path: "/usr/local/bin/stillpoint", From: dir + "/stillpoint"})
	o.Files = append(files, vm.Unit("../../packaging/stillpoint-agent.service", "sysinit.target")...)
	for _, f := range more {
		if err := f(ctx, im, &o); err != nil {
			t.Fatal(err)
		}
	}
	m, err := im.New(ctx, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, m}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the console:\n%s", m.Console())
		}
		m.Cut()
	})
	t.Logf("made in %s", time.Since(began).Round(time.Second))
	r.start()
	return r
}

// start gives it power and waits until all is started.
func (r *rig) start() {
	r.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), 4*time.Minute)
	defer cancel()
	if err := r.m.Start(ctx); err != nil {
		r.Fatal(err)
	}
	if res, err := r.m.Run(ctx, "systemctl is-system-running --wait; systemctl --failed --no-legend --plain"); err != nil || res.Out != "running\n" {
		r.Fatalf("not up: %v\n%s%s", err, res.Out, res.Err)
	}
	r.Logf("%s with Linux %s is up in %s", r.m.Name(), r.m.Release(), time.Since(began).Round(time.Second))
}

// sub runs a part of the test, which the following ones need.
func (r *rig) sub(name string, f func(*rig)) {
	r.Helper()
	began := time.Now()
	if !r.Run(name, func(t *testing.T) {
		f(&rig{t, r.m})
		t.Logf("%s took %s", name, time.Since(began).Round(time.Second))
	}) {
		r.FailNow()
	}
}

// try runs a script, for two minutes at the most.
func (r *rig) try(script string) vm.Result {
	r.Helper()
	return r.long(2*time.Minute, script)
}

func (r *rig) long(limit time.Duration, script string) vm.Result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	res, err := r.m.Run(ctx, env+script)
	if err != nil {
		r.Fatal(err)
	}
	return res
}

// must runs a script that has to succeed, and returns what it prints.
func (r *rig) must(script string) string {
	r.Helper()
	return r.good(script, r.try(script))
}

func (r *rig) mustWithin(limit time.Duration, script string) string {
	r.Helper()
	return r.good(script, r.long(limit, script))
}

func (r *rig) good(script string, res vm.Result) string {
	r.Helper()
	if res.Code != 0 {
		r.Fatalf("%s\nended with %d\n%s%s", script, res.Code, res.Out, res.Err)
	}
	return strings.TrimSpace(res.Out)
}

// soon runs a script until it succeeds.
func (r *rig) soon(script string) string {
	r.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		res := r.try(script)
		if res.Code == 0 {
			return strings.TrimSpace(res.Out)
		}
		if time.Now().After(end) {
			r.Fatalf("not soon: %s\nended with %d\n%s%s", script, res.Code, res.Out, res.Err)
		}
	}
}

// backUpTo begins a backup by a program with faults, in the unit backup, and returns when it
// is at a step, where it stays until /run/reached is removed.
func (r *rig) backUpTo(point, script string) {
	r.Helper()
	r.must("rm -f /run/reached\n" + `systemd-run --quiet --collect --unit=backup --setenv=STILLPOINT_REPO=$STILLPOINT_REPO --setenv=STILLPOINT_PASSWORD="$STILLPOINT_PASSWORD" --setenv=HOME=/root ` +
		"--setenv=STILLPOINT_FAULT=wait:" + point + " --setenv=STILLPOINT_FAULT_WAIT=15m --setenv=STILLPOINT_FAULT_REACHED=/run/reached sh -c '" + script + "'")
	r.must(reached)
}

// figures are what `guest figures` prints.
type figures struct {
	Records, Payments int64
	LongestMS, SyncMS float64
	LongestAt         time.Time
}

// figures asks what was written, and starts to measure anew.
func (r *rig) figures() (f figures) {
	r.Helper()
	if err := json.Unmarshal([]byte(r.must("guest figures")), &f); err != nil {
		r.Fatal(err)
	}
	return f
}

// goesOn wants that the writers go on, and that no write of theirs took 2 s since the
// figures were asked for last: an emulated machine is ten times slower than a real one.
func (r *rig) goesOn(during string) {
	r.Helper()
	r.goesOnWith(during, r.figures())
}

// goesOnWith is goesOn after the figures were asked for once more.
func (r *rig) goesOnWith(during string, f figures) {
	r.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		now := r.figures()
		if f.SyncMS = max(f.SyncMS, now.SyncMS); now.LongestMS > f.LongestMS {
			f.LongestMS, f.LongestAt = now.LongestMS, now.LongestAt
		}
		if now.Records > f.Records && now.Payments > f.Payments {
			break
		}
		if time.Now().After(end) {
			r.Fatalf("%s: nobody writes any more: %+v", during, now)
		}
	}
	r.Logf("%s: the longest write took %.0f ms, the longest payment %.0f ms", during, f.LongestMS, f.SyncMS)
	if f.LongestMS > 2000 {
		r.Errorf("%s: a write took %.0f ms, from %s on; the agent says:\n%s", during, f.LongestMS, f.LongestAt.UTC().Format(time.TimeOnly+".000"),
			r.must("journalctl --unit=stillpoint-agent --output=short-precise --lines=20"))
	}
}
