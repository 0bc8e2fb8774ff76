package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inChild runs the rest of a test in a child, which prepare changes before it
// starts, and returns true in there.
func inChild(t *testing.T, prepare func(*exec.Cmd)) bool {
	t.Helper()
	needRoot(t)
	const marker = "STILLPOINT_TEST_CHILD"
	if os.Getenv(marker) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), marker+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	prepare(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a child: %v\n%s", err, out)
	}
	return false
}

// In a chroot "/" is no mount, and still a Space is one.
func TestSpaceInChroot(t *testing.T) { inChroot(t, false) }

// Or it is a mount, which others share, and not the root of them all.
func TestSpaceInMountedChroot(t *testing.T) { inChroot(t, true) }

func inChroot(t *testing.T, mounted bool) {
	if !inChild(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "STILLPOINT_TEST_ROOT="+t.TempDir()) // the parent's, which can remove it
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}) {
		return
	}
	dir := os.Getenv("STILLPOINT_TEST_ROOT")
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if mounted {
		must(syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
		must(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""))
	}
	must(os.MkdirAll(dir+"/proc", 0o700))
	must(syscall.Mount("proc", dir+"/proc", "proc", 0, ""))
	must(syscall.Chroot(dir))
	must(os.Chdir("/"))
	s, err := NewSpace()
	must(err)
	defer s.Close()
	a := memory(t)
	must(s.Attach(a, makeDir(t, s.Root(), "a")))
	write(t, procPath(a)+"/file", "content")
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Errorf("the chroot has changed: %v", err)
	}
	if _, err := os.Stat("/etc"); err == nil {
		t.Error("other threads left the chroot")
	}
	if n := elsewhere(t); n != 2 {
		t.Errorf("the Space has %d mounts, want its own and the one that is attached", n)
	}
	// Without /proc it cannot be done, and that is said.
	must(syscall.Unmount("/proc", syscall.MNT_DETACH))
	if _, err := NewSpace(); err == nil || !strings.Contains(err.Error(), "in a chroot, open /proc") {
		t.Errorf("without /proc: %v", err)
	}
}

// The limit of namespaces is that of the user namespace.
func TestSpaceLimit(t *testing.T) {
	if !inChild(t, func(cmd *exec.Cmd) {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
	}) {
		return
	}
	if s, err := NewSpace(); err != nil {
		t.Errorf("as root of a user namespace: %v", err)
	} else {
		s.Close()
	}
	if err := os.WriteFile("/proc/sys/user/max_mnt_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := NewSpace()
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(fmt.Sprint(err), "unshare mount namespace") {
		t.Errorf("over the limit: %v", err)
	}
}

// Without CAP_SYS_ADMIN there is no Space.
func TestSpaceNotAllowed(t *testing.T) {
	if !inChild(t, func(cmd *exec.Cmd) {
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = setpriv, append([]string{"setpriv", "--bounding-set", "-sys_admin"}, cmd.Args...)
	}) {
		return
	}
	if _, err := NewSpace(); !errors.Is(err, syscall.EPERM) {
		t.Errorf("%v", err)
	}
}

// elsewhere counts the mounts of the threads that are in another namespace.
func elsewhere(t *testing.T) (n int) {
	t.Helper()
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		there, err := os.Readlink(task + "/ns/mnt")
		if err != nil || there == here {
			continue // or a thread that ended
		}
		b, err := os.ReadFile(task + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		n += strings.Count(string(b), "\n")
	}
	return n
}
