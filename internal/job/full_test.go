package job

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
)

// small is a folder on a file system of 64 KiB.
func small(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("stillpoint-test", dir, "tmpfs", syscall.MS_NODEV|syscall.MS_NOSUID, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	mount := small(t)
	dir := filepath.Join(mount, "jobs")
	l := create(t, dir, nil)
	ballast := filepath.Join(mount, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 32<<10), 0o600))

	// Fill it up: the event that does not fit is not lost.
	var want []string
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("the file system never filled up")
		}
		text := fmt.Sprintf("%d %s", i, strings.Repeat("x", 999))
		want = append(want, text)
		err = l.Add(Event{Step: StepStore, Text: text})
	}
	if !problem.Is(err, problem.StateLost) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("full: %v", err)
	}
	if !strings.HasPrefix(err.Error(), filepath.Join(dir, l.ID()+suffix)+": write: ") {
		t.Errorf("full: %v", err)
	}
	j := load(t, dir, l.ID())
	if got := texts(j.Events); j.TornLines != 0 || !slices.Equal(got, want[:len(want)-1]) {
		t.Fatalf("full: %d events, %d torn; want %d", len(got), j.TornLines, len(want)-1)
	}

	// It stays full: an intent is refused, and a job that starts now, too.
	want = append(want, "intent")
	if err := l.Intent(Event{Step: StepCapture, Intent: "a", Text: "intent"}); !problem.Is(err, problem.StateLost) {
		t.Fatalf("intent on a full disk: %v", err)
	}
	before, err := os.ReadDir(dir)
	must(t, err)
	if _, err := Create(dir, Start{Kind: Backup}); !problem.Is(err, problem.StateLost) {
		t.Fatalf("create on a full disk: %v", err)
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Fatalf("create on a full disk left a file: %v, %v", after, err)
	}

	// There is room again: everything gets its place.
	must(t, os.Remove(ballast))
	want = append(want, "room")
	must(t, l.Add(Event{Text: "room"}))
	must(t, l.Close(&Report{Status: Complete}))
	j = load(t, dir, l.ID())
	if got := texts(j.Events); j.TornLines != 0 || !slices.Equal(got, want) || j.Status != Complete {
		t.Errorf("room again: %d events of %d, %d torn, %s", len(got), len(want), j.TornLines, j.Status)
	}
}

// A full disk at the very end: Close says so, and the log reads as that of a
// job that died, which can be closed once there is room.
func TestFullDiskAtTheEnd(t *testing.T) {
	mount := small(t)
	dir := filepath.Join(mount, "jobs")
	l := create(t, dir, nil)
	must(t, l.Add(Event{Text: "all went well"}))
	ballast, err := os.Create(filepath.Join(mount, "ballast"))
	must(t, err)
	defer ballast.Close()
	for {
		if _, err := ballast.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	r := Report{Status: Complete, LeftOut: []LeftOut{{Reason: strings.Repeat("x", 8192), Count: 1}}}
	if err := l.Close(&r); !problem.Is(err, problem.StateLost) {
		t.Fatalf("close: %v", err)
	}
	if j := load(t, dir, l.ID()); j.Status != Died || j.TornLines != 0 || len(j.Events) != 1 {
		t.Errorf("%+v, %d torn", j.Summary, j.TornLines)
	}
	// The room left in the last block of the log is used up as well.
	log := filepath.Join(dir, l.ID()+suffix)
	info, err := os.Stat(log)
	must(t, err)
	pad, err := encodeLine(lineEvent, Event{Text: strings.Repeat("x", 4096-int(info.Size())-200)})
	must(t, err)
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write(pad)
	must(t, err)
	must(t, f.Close())

	dead, err := CloseDead(dir)
	if !problem.Is(err, problem.StateLost) || len(dead) != 1 || dead[0].Status != Died {
		t.Errorf("close dead on a full disk: %+v, %v", dead, err)
	}
	if j := load(t, dir, l.ID()); j.Status != Died || j.TornLines != 0 || len(j.Events) != 2 {
		t.Errorf("after the attempt: %+v, %d torn, %d events", j.Summary, j.TornLines, len(j.Events))
	}
	must(t, ballast.Truncate(0))
	if dead, err := CloseDead(dir); err != nil || len(dead) != 1 || dead[0].Status != Failed {
		t.Errorf("close dead with room: %+v, %v", dead, err)
	}
}

func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	readOnly := small(t)
	must(t, os.Mkdir(filepath.Join(readOnly, "jobs"), 0o700))
	must(t, syscall.Mount("", readOnly, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for name, dir := range map[string]string{
		"a file in its place": file,
		"below a file":        filepath.Join(file, "jobs"),
		"read-only":           filepath.Join(readOnly, "jobs"),
		"below read-only":     filepath.Join(readOnly, "jobs", "deeper"),
	} {
		if _, err := Create(dir, Start{Kind: Backup}); !problem.Is(err, problem.StateLost) {
			t.Errorf("create, %s: %v", name, err)
		}
	}
	for name, call := range map[string]func(string) error{
		"list":       func(d string) error { _, err := List(d); return err },
		"load":       func(d string) error { _, err := Load(d, "abc"); return err },
		"close dead": func(d string) error { _, err := CloseDead(d); return err },
		"prune":      func(d string) error { _, err := Prune(d, 1); return err },
	} {
		if err := call(file); !problem.Is(err, problem.StateLost) {
			t.Errorf("%s, a file in its place: %v", name, err)
		}
	}
	// No folder is no jobs, not a failure.
	if list, err := List(filepath.Join(t.TempDir(), "none")); err != nil || list != nil {
		t.Errorf("no folder: %+v, %v", list, err)
	}
}

// When not even the torn piece can be cut off, as with chattr +a, it becomes a
// line of its own, and spoils no other.
func TestTornPieceThatStays(t *testing.T) {
	mount := small(t)
	dir := filepath.Join(mount, "jobs")
	l := create(t, dir, nil)
	ballast := filepath.Join(mount, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 32<<10), 0o600))
	if out, err := exec.Command("chattr", "+a", filepath.Join(dir, l.ID()+suffix)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var want []string
	var err error
	for i := 0; err == nil; i++ {
		want = append(want, fmt.Sprintf("%d %s", i, strings.Repeat("x", 999)))
		err = l.Add(Event{Step: StepStore, Text: want[i]})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, os.Remove(ballast))
	want = append(want, "room")
	must(t, l.Add(Event{Text: "room"}))
	must(t, l.Close(&Report{Status: Complete}))
	j := load(t, dir, l.ID())
	if got := texts(j.Events); j.TornLines != 1 || !slices.Equal(got, want) || j.Status != Complete {
		t.Errorf("%d events of %d, %d torn, %s", len(got), len(want), j.TornLines, j.Status)
	}
}
