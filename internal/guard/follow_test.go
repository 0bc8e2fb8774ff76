package guard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// followed lets the guard follow a process, by its number and the path of a
// pipe.
func followed(g *Guard, text string) error {
	var pid int
	var path string
	if _, err := fmt.Sscan(text, &pid, &path); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	handle := os.NewFile(uintptr(fd), "process")
	pipe, err := os.Open(path)
	if err != nil {
		return err
	}
	// The last one counts.
	return errors.Join(g.Follow(pipe, pipe), g.Follow(handle, pipe), handle.Close(), pipe.Close())
}

// Who is followed is killed after a parent that died, unless it says in time that it has done what it is there for.
func TestFollow(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		for _, acts := range []bool{false, true} {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			other := exec.Command("sleep", "60")
			if !acts {
				other.ExtraFiles = []*os.File{w}
			}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				_ = other.Wait()
				close(ended)
			}()
			p := startParent(t, dir, fmt.Sprintf("GUARD_TEST_FOLLOW=%d /proc/%d/fd/%d", other.Process.Pid, os.Getpid(), r.Fd()))
			r.Close()
			w.Close() // which nobody has any more where it acts
			_ = p.Process.Kill()
			waitWritable(t, dir)
			waitGone(t, p.guard)
			if !acts {
				waitGone(t, other.Process.Pid)
			} else if !alive(other.Process.Pid) {
				t.Error("it was killed, and had acted")
			}
			_ = other.Process.Kill()
			<-ended
		}
	})
}
