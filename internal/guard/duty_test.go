package guard

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// write is the duty of the tests: it says who is the parent of the guard then, and
// what descriptors a program that it ran would have.
func write(to string) {
	_ = os.WriteFile(to+inherited, []byte(inheritable()), 0o600)
	_ = os.WriteFile(to, []byte(strconv.Itoa(os.Getppid())), 0o600)
}

const inherited = ".inherited"

// inheritable are those descriptors of a guard that programs get which it runs.
func inheritable() (all string) {
	for _, fd := range []int{socketFD, parentFD, sentinelFD} {
		if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == 0 && flags&syscall.FD_CLOEXEC == 0 {
			all += strconv.Itoa(fd) + " "
		}
	}
	return all
}

// A duty is done when the parent has died and everything is thawed, however it died;
// and not when it has closed the guard.
func TestDuty(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		for name, c := range map[string]struct {
			env  []string
			end  func(*parent)
			done bool
		}{
			"killed":        {nil, func(p *parent) { _ = p.Process.Kill() }, true},
			"stopped first": {nil, func(p *parent) { _ = p.Process.Signal(syscall.SIGSTOP); _ = p.Process.Kill() }, true},
			"waits":         {[]string{"GUARD_TEST_BLOCK=1", "GUARD_TEST_LIMIT=5s"}, func(p *parent) { _ = p.Process.Kill() }, true},
			"closed":        {[]string{"GUARD_TEST_THAW=1"}, func(*parent) {}, false},
		} {
			t.Run(name, func(t *testing.T) {
				to := filepath.Join(t.TempDir(), "done")
				p := startParent(t, dir, append(c.env, "GUARD_TEST_DUTY="+to)...)
				c.end(p)
				waitWritable(t, dir)
				_ = p.Wait()
				gone(t, p.guard)
				is, err := os.ReadFile(to)
				if done := err == nil; done != c.done {
					t.Errorf("the duty was done: %v", done)
				}
				if fds, err := os.ReadFile(to + inherited); c.done && (err != nil || len(fds) > 0) {
					t.Errorf("its programs have the descriptors %s: %v", fds, err)
				}
				if string(is) == strconv.Itoa(p.Process.Pid) {
					t.Error("the duty was done while the parent lived")
				}
			})
		}
	})
}

// gone waits longer than waitGone does, for a guard that has a duty.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("guard %d is left", pid)
		}
	}
}
