package guard

import (
	"os"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/sys/freeze"
)

// A freeze that hangs, behind a write that waits for an empty pipe, comes to
// its end long after the deadline: it is undone at once.
func TestFreezeStuck(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		f, err := os.Create(dir + "/file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		pipe := make([]int, 2)
		if err := syscall.Pipe2(pipe, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		feed := func() { _, _ = syscall.Write(pipe[1], []byte("x")) }
		// The kernel lets nobody cancel the freeze: feed the pipe in any case.
		late := time.AfterFunc(20*time.Second, feed)
		defer late.Stop()
		spliced := make(chan error, 1)
		go func() {
			_, err := syscall.Splice(pipe[0], nil, int(f.Fd()), nil, 4096, 0)
			spliced <- err
		}()
		time.Sleep(50 * time.Millisecond)

		g := start(t, root)
		if err := g.Hold(200 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		froze := make(chan error, 1)
		go func() { froze <- freeze.Freeze(root) }()
		select {
		case err := <-froze:
			t.Errorf("the freeze did not hang: %v", err)
		case <-time.After(500 * time.Millisecond):
		}
		feed()
		if err := <-spliced; err != nil {
			t.Error(err)
		}
		if err := <-froze; err != nil {
			t.Error(err)
		}
		t.Logf("thawed %v after the freeze", waitWritable(t, dir))
		if thawed, err := g.Done(); !thawed || err != nil {
			t.Errorf("done: late %t, %v", thawed, err)
		}
		syscall.Close(pipe[0])
		syscall.Close(pipe[1])
	})
}
