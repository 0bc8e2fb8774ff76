package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"stillpoint/internal/doctor"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// TestDoctorScripts runs what looks at a host that is made so for real, each
// script on volumes of its own; see testdata/doctor.
func TestDoctorScripts(t *testing.T) {
	scratch.NeedRoot(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/doctor",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(10 * time.Minute),
		Setup: func(e *testscript.Env) error {
			tb := e.T().(testing.TB)
			v := scratch.New(tb, "ext4", 200*scratch.MiB)
			e.Setenv("VOL", v.Dir)
			if strings.HasSuffix(e.WorkDir, "script-cache") {
				e.Setenv("BIG", scratch.New(tb, "ext4", 4096*scratch.MiB, scratch.Format("-N", "1024")).Dir)
				e.Setenv("PLACE", scratch.New(tb, "ext4", 400*scratch.MiB).Dir)
			}
			e.Defer(func() { // what a script that failed has left
				_ = syscall.Unmount(v.Dir+"/memory", syscall.MNT_DETACH)
				_ = syscall.Unmount(v.Dir+"/a-server", syscall.MNT_DETACH)
				if b, err := os.ReadFile("/proc/swaps"); err == nil && strings.Contains(string(b), v.Dir+"/") {
					scratch.Run(tb, "swapoff", v.Dir+"/swap")
				}
			})
			e.Setenv("STILLPOINT_AGENT", filepath.Join(e.WorkDir, "agent.sock"))
			e.Setenv("STILLPOINT_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("STILLPOINT_REPO", filepath.Join(e.WorkDir, "repo"))
			e.Setenv("STILLPOINT_PASSWORD", "a secret")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": cmdExits, "fields": cmdFields, "soon": cmdSoon},
	})
}

// What decides the exit code is the worst finding.
func TestDiagnosed(t *testing.T) {
	at := func(rs ...doctor.Result) (fs []doctor.Finding) {
		for _, r := range rs {
			fs = append(fs, doctor.Finding{Result: r, Code: problem.CacheNowhere})
		}
		return fs
	}
	for want, fs := range map[int][]doctor.Finding{
		exitComplete:   at(doctor.OK, doctor.NotApplicable),
		exitExceptions: at(doctor.OK, doctor.Unknown),
		exitFailed:     at(doctor.Warning, doctor.Failure, doctor.OK),
	} {
		if got := exitCode(diagnosed(fs)); got != want {
			t.Errorf("%v exits with %d, not %d", fs, got, want)
		}
	}
	plan := []doctor.Finding{{Check: "cache", Result: doctor.Failure, Code: problem.CacheNowhere}, {Check: planCheck, Result: doctor.Failure, Code: problem.CacheNowhere}}
	if n := len(once(plan)); n != 1 {
		t.Errorf("the same is said %d times", n)
	}
}

// scanner is an on-access scanner of the file system of its argument, which finds
// everything clean, for five minutes at most.
func scanner() {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_LARGEFILE)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM, unix.AT_FDCWD, os.Args[1])
	}
	if err == nil {
		err = os.WriteFile("scanning", nil, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	time.AfterFunc(5*time.Minute, func() { os.Exit(0) })
	for r := bufio.NewReader(os.NewFile(uintptr(fd), "fanotify")); ; {
		var event struct {
			Length          uint32
			Version, _      uint8
			MetadataLength  uint16
			Mask            uint64
			Descriptor, PID int32
		}
		if err := binary.Read(r, binary.NativeEndian, &event); err != nil {
			os.Exit(1)
		}
		_, _ = unix.Write(fd, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, uint32(event.Descriptor)), unix.FAN_ALLOW))
		_ = unix.Close(int(event.Descriptor))
	}
}

// silent mounts at its argument what a server has that does not answer any more, for five
// minutes at most.
func silent() {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		err = syscall.Mount("me@host:/srv", os.Args[1], "fuse.sshfs", syscall.MS_NODEV|syscall.MS_NOSUID, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", f.Fd()))
	}
	if err == nil {
		err = os.WriteFile("mounted", nil, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	time.Sleep(5 * time.Minute)
}

// ahead begins a job by a clock that is a day ahead, and dies.
func ahead() {
	dir, err := job.DefaultDir()
	if err == nil {
		_, err = job.Create(dir, job.Start{Kind: job.Backup, Args: os.Args, Version: "test", Now: func() time.Time { return time.Now().Add(24 * time.Hour) }})
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
