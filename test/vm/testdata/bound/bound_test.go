package bound

import (
	"os"
	"strings"
	"testing"
)

func TestPasses(t *testing.T) {
	kernel, err := os.ReadFile("/proc/version")
	if err != nil || Used() != 1 {
		t.Fatal(err)
	}
	t.Logf("this is %s", kernel)
}

// And one for each way in which tests end.
func TestFails(t *testing.T) { t.Error("is not as it is to be") }

func TestExits(*testing.T) { os.Exit(3) }

func TestPanics(*testing.T) { panic("cannot go on") }

func TestHangs(*testing.T) { select {} }

// What was made durable before the power is gone is there afterwards.
func TestBoots(t *testing.T) {
	const disk = "/dev/disk/by-id/virtio-scratch0"
	boot := os.Getenv("STILLPOINT_TEST_BOOT")
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("boot %s finds %q", boot, strings.Trim(string(b), "\x00"))
	if boot == "2" {
		if !strings.HasPrefix(string(b), "of boot 1") {
			t.Error("it is not what boot 1 has written")
		}
		return
	}
	if _, err := f.WriteAt([]byte("of boot "+boot), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	t.Fatal("the power was not taken: ", os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0o200))
}
