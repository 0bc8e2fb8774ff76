package freeze

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/scratch"
)

func onVolumes(t *testing.T, f func(t *testing.T, dir string, root *os.File)) {
	for kind, size := range map[string]int64{"ext4": 128 * scratch.MiB, "xfs": 320 * scratch.MiB} {
		t.Run(kind, func(t *testing.T) {
			v := scratch.New(t, kind, size)
			root, err := os.Open(v.Dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { root.Close() })
			// Two ways back: at the end of the test, and when it hangs.
			late := time.AfterFunc(20*time.Second, func() { _ = ThawDescriptor(int(root.Fd())) })
			t.Cleanup(func() { late.Stop(); _ = Thaw(root) })
			f(t, v.Dir, root)
		})
	}
}

func TestFreeze(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		frozen := func(want bool) {
			t.Helper()
			if got, err := Frozen(root); got != want || err != nil {
				t.Errorf("frozen: %t, %v", got, err)
			}
		}
		if err := os.WriteFile(dir+"/file", []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		frozen(false)
		frozen(false) // and asking left it so
		if err := Sync(root); err != nil {
			t.Error(err)
		}
		if err := Freeze(root); err != nil {
			t.Fatal(err)
		}
		frozen(true)
		if err := Freeze(root); !errors.Is(err, ErrFrozen) {
			t.Errorf("freeze twice: %v", err)
		}
		wrote := make(chan error, 1)
		go func() { wrote <- os.WriteFile(dir+"/file", []byte("after"), 0o600) }()
		select {
		case err := <-wrote:
			t.Errorf("a write got through: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if b, err := os.ReadFile(dir + "/file"); err != nil || string(b) != "before" {
			t.Errorf("while frozen it reads %q, %v", b, err)
		}
		if err := Thaw(root); err != nil {
			t.Fatal(err)
		}
		if err := <-wrote; err != nil {
			t.Errorf("the write after the thaw: %v", err)
		}
		frozen(false)
		if err := Thaw(root); !errors.Is(err, ErrNotFrozen) {
			t.Errorf("thaw twice: %v", err)
		}
		if errno := ThawDescriptor(int(root.Fd())); errno != ErrNotFrozen {
			t.Errorf("thaw by descriptor: %v", errno)
		}
	})
}

// Who asks while somebody else thaws, as a guard does over and over, gets an answer.
func TestFrozenBesideThaw(t *testing.T) {
	onVolumes(t, func(t *testing.T, _ string, root *os.File) {
		var quicker atomic.Int64
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-stop:
					return
				default:
					if Thaw(root) == nil {
						quicker.Add(1)
					}
				}
			}
		}()
		defer func() { close(stop); <-ended }() // before root is closed
		for end := time.Now().Add(10 * time.Second); quicker.Load() < 5; {
			if frozen, err := Frozen(root); frozen || err != nil {
				t.Fatalf("frozen: %t, %v", frozen, err)
			}
			if time.Now().After(end) {
				t.Fatal("nobody was quicker: this shows nothing")
			}
		}
	})
}

func TestUnsupported(t *testing.T) {
	scratch.NeedRoot(t)
	memory, err := os.Open("/dev/shm")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if err := Freeze(memory); !errors.Is(err, ErrUnsupported) {
		t.Errorf("freeze of memory: %v", err)
	}
	if frozen, err := Frozen(memory); frozen || !errors.Is(err, ErrUnsupported) {
		t.Errorf("frozen: %t, %v", frozen, err)
	}
}
