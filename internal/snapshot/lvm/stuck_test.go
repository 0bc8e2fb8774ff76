//go:build vm

package lvm

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/tool"
)

// What is suspended for a moment, as by who changes it, is waited for.
func TestBriefly(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	for _, name := range []string{g.name + "-a", g.name + "-pool-tpool"} {
		scratch.Run(t, "dmsetup", "suspend", "--noflush", name)
		resumed := make(chan error, 1)
		go func() {
			time.Sleep(brief / 10)
			_, err := tool.Run(context.Background(), "dmsetup", "resume", name)
			resumed <- err
		}()
		err := New(hostTable).Check(t.Context(), v.Volume)
		if rerr := <-resumed; err != nil || rerr != nil {
			t.Errorf("%s: %v, %v", name, err, rerr)
		}
	}
	// What stays so is said, and LVM not asked, wherever below the volume it is.
	below := g.name + "-pool_tdata"
	scratch.Run(t, "dmsetup", "suspend", "--noflush", below)
	err := (&Provider{console: consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		t.Error("LVM was asked")
		return nil, context.Canceled
	})}).Check(t.Context(), v.Volume)
	scratch.Run(t, "dmsetup", "resume", below)
	if problem.CodeOf(err) != problem.DeviceSuspended || !strings.Contains(err.Error(), below) {
		t.Errorf("got %v, want device-suspended", err)
	}
}

// A command hangs on a disk that does not answer, and when that answers again, the
// snapshot that could not be removed is removed.
func TestHangs(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	image, under := g.dir+"/second", g.name+"under"
	scratch.Run(t, "truncate", "--size", "64M", image)
	loop := strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { scratch.Run(t, "losetup", "--detach", loop) })
	scratch.Run(t, "dmsetup", "create", under, "--table", "0 129024 linear "+loop+" 2048") // not at its beginning: it would look like the disk itself
	t.Cleanup(func() { scratch.Run(t, "dmsetup", "remove", "--retry", under) })
	scratch.Run(t, "vgextend", "--yes", "-q", g.name, "/dev/mapper/"+under)
	t.Cleanup(func() { scratch.Run(t, "vgreduce", "--yes", "-q", g.name, "/dev/mapper/"+under) })

	c := newConsole()
	c.patience = 2 * time.Second
	p := &Provider{console: c}
	s := take(t, p, "hangs", v)[0]
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "dmsetup", "suspend", under)
	resume := func() { _, _ = tool.Run(context.Background(), "dmsetup", "resume", under) }
	defer resume()
	if err := s.Release(t.Context()); problem.CodeOf(err) != problem.LVMStuck {
		t.Errorf("got %v, want lvm-stuck", err)
	}
	began := time.Now()
	if err := p.Check(t.Context(), v.Volume); problem.CodeOf(err) != problem.LVMStuck || time.Since(began) > time.Second {
		t.Errorf("after %v: %v, want lvm-stuck at once", time.Since(began), err)
	}
	if err := os.WriteFile(v.Dir+"/meanwhile", nil, 0o600); err != nil {
		t.Error(err)
	}
	resume()
	until(t, "the end of the snapshot", s.(*target).released.Load)
	if err := p.Check(t.Context(), v.Volume); err != nil {
		t.Error(err)
	}
	if _, err := tool.Run(t.Context(), "lvs", g.name+"/"+namePrefix+"hangs-0"); err == nil {
		t.Error("it is still there")
	}
}
