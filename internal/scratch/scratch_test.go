package scratch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNew(t *testing.T) {
	NeedRoot(t)
	for fsType, size := range map[string]int64{"btrfs": 128 * MiB, "ext4": 64 * MiB, "xfs": 320 * MiB} {
		t.Run(fsType, func(t *testing.T) {
			var base string
			t.Run("use", func(t *testing.T) {
				v := New(t, fsType, size)
				base = v.base
				found, rel := Find(t, v.Dir)
				if found.FSType != fsType || found.Source != v.Devices[0] || rel != "." {
					t.Errorf("found %+v, %q", found, rel)
				}
				if err := os.WriteFile(v.Dir+"/file", []byte("x"), 0o600); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(v.Bind(t, v.Dir) + "/file"); err != nil || string(b) != "x" {
					t.Errorf("through a bind mount: %q, %v", b, err)
				}
			})
			checkGone(t, base)
		})
	}
}

func TestDevices(t *testing.T) {
	v := New(t, "btrfs", 128*MiB, Devices(2), MountOptions("noatime"))
	if len(v.Devices) != 2 {
		t.Error(v.Devices)
	}
	if out := Run(t, "btrfs", "filesystem", "show", v.Dir); strings.Count(out, "/dev/loop") != 2 {
		t.Error(out)
	}
}

// A test that is killed leaves nothing.
func TestKilled(t *testing.T) {
	base := killed(t, "TestKilled", false)
	waitGone(base)
	checkGone(t, base)
}

// waitGone waits for another process that removes base.
func waitGone(base string) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(base); err != nil {
			return
		}
	}
}

// What a test left that was killed together with its janitor goes with the next
// volume, and nothing of one that lives.
func TestKilledWithJanitor(t *testing.T) {
	living := New(t, "ext4", 64*MiB)
	base := killed(t, "TestKilledWithJanitor", true)
	New(t, "ext4", 64*MiB)
	waitGone(base) // another package's test may have been faster, and be at it
	checkGone(t, base)
	if err := os.WriteFile(living.Dir+"/file", nil, 0o600); err != nil || len(mountsBelow(living.base)) != 1 {
		t.Errorf("the living one: %v", err)
	}
}

// killed runs the test in a child that makes a volume, kills it, and its
// janitor before that if so wanted, and returns the volume's base.
func killed(t *testing.T, test string, withJanitor bool) (base string) {
	t.Helper()
	NeedRoot(t)
	const told = "SCRATCH_TEST_CHILD"
	if path := os.Getenv(told); path != "" {
		v := New(t, "btrfs", 128*MiB)
		_ = os.WriteFile(path+".new", fmt.Appendf(nil, "%s %d", v.base, v.janitor.process.Pid()), 0o600)
		_ = os.Rename(path+".new", path)
		time.Sleep(time.Minute)
	}
	path := filepath.Join(t.TempDir(), "told")
	child := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	child.Env = append(os.Environ(), told+"="+path)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var janitor int
	for end := time.Now().Add(30 * time.Second); base == "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(path)
		_, _ = fmt.Sscan(string(b), &base, &janitor)
	}
	if withJanitor && janitor > 0 {
		_ = syscall.Kill(-janitor, syscall.SIGKILL)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if base == "" {
		t.Fatal("the child made no volume")
	}
	return base
}

func checkGone(t *testing.T, base string) {
	t.Helper()
	if _, err := os.Stat(base); err == nil {
		t.Errorf("%s is left", base)
	}
	if m := mountsBelow(base); len(m) > 0 {
		t.Errorf("mounts are left: %v", m)
	}
	if out := Run(t, "losetup", "--list", "--noheadings", "--output", "BACK-FILE"); strings.Contains(out, base) {
		t.Errorf("loop devices are left:\n%s", out)
	}
}

// recorder notes failures instead of failing.
type recorder struct {
	testing.TB
	failed   []string
	then     func() // at the first complaint
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	if len(r.failed) == 0 && r.then != nil {
		r.then()
	}
	r.failed = append(r.failed, format)
}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// A volume that is still in use when the test ends is a failure, and is gone
// all the same.
func TestInUse(t *testing.T) {
	NeedRoot(t)
	r := &recorder{TB: t}
	v := New(r, "ext4", 64*MiB)
	f, err := os.Create(v.Dir + "/open")
	if err != nil {
		t.Fatal(err)
	}
	r.then = func() { time.AfterFunc(300*time.Millisecond, func() { f.Close() }) }
	for _, f := range r.cleanups {
		f()
	}
	if len(r.failed) != 1 || !strings.Contains(r.failed[0], "in use") {
		t.Errorf("complained: %q", r.failed)
	}
	checkGone(t, v.base)
}
