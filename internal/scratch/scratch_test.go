package scratch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	NeedRoot(t)
	if os.Getenv("SCRATCH_TEST_CHILD") != "" {
		v := New(t, "btrfs", 128*MiB)
		_ = os.WriteFile(os.Getenv("SCRATCH_TEST_CHILD"), []byte(v.base), 0o600)
		time.Sleep(time.Minute)
		return
	}
	told := filepath.Join(t.TempDir(), "base")
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), "SCRATCH_TEST_CHILD="+told)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var base string
	for end := time.Now().Add(30 * time.Second); base == "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(told)
		base = string(b)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if base == "" {
		t.Fatal("the child made no volume")
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(base); err != nil {
			break
		}
	}
	checkGone(t, base)
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
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) { r.failed = append(r.failed, format) }
func (r *recorder) Cleanup(f func())                  { r.cleanups = append(r.cleanups, f) }

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
	time.AfterFunc(300*time.Millisecond, func() { f.Close() })
	for _, f := range r.cleanups {
		f()
	}
	if len(r.failed) != 1 || !strings.Contains(r.failed[0], "in use") {
		t.Errorf("complained: %q", r.failed)
	}
	checkGone(t, v.base)
}
