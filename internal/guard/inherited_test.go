package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What this process got from who has started it, and would pass on, the guard has not.
func TestInherited(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		passed, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD, 60) // not closed on exec
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(passed)
		g := start(t, root)
		pipe, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", passed))
		if err != nil {
			t.Fatal(err)
		}
		has, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.process.Pid()))
		if err != nil || len(has) < 6 {
			t.Fatalf("the guard has %v, %v", has, err)
		}
		for _, fd := range has {
			if is, _ := os.Readlink(fd); is == pipe {
				t.Errorf("the guard has %s as %s", is, fd)
			}
		}
	})
}
