package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// The name of a device that became that of another one by now is not believed:
// what lies there is not even mounted, which would replay its log.
func TestRenamedDevice(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	other := newDisk(t)
	other.create("@")
	scratch.Run(t, "sync", "-f", other.Dir)
	f, err := os.Create(other.in("@/logged"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("logged")
	must(t, err)
	must(t, f.Sync()) // into the log tree
	device, image := attachCopy(t, other)
	before := sum(t, image)

	v := d.mounted("@")
	name := filepath.Join(t.TempDir(), "disk")
	must(t, os.Symlink(device, name))
	v.Source = name
	p := New(host)
	must(t, p.Check(t.Context(), v)) // by the names of its devices
	v.Stack = []volume.Device{{Name: "none", Number: v.Stack[0].Number}}
	refused(t, v, problem.VolumeLost)
	if err := p.Check(t.Context(), v); !strings.Contains(fmt.Sprint(err), "by now") {
		t.Errorf("%v", err)
	}
	v.Stack = nil // nothing is known but the UUID
	refused(t, v, problem.VolumeLost)
	if after := sum(t, image); after != before {
		t.Error("the other file system was written to")
	}
	nothingLeft(t, d)
}

// What was mounted is asked for its devices, too: a copy has the same UUID.
func TestVerifyDevices(t *testing.T) {
	d := newDisk(t)
	v := find(t, d.Dir)
	f, err := openTop(v)
	must(t, err)
	defer f.close()
	must(t, f.verify(v))
	v.Stack = []volume.Device{{Name: "x", Number: "1:1"}}
	if err := f.verify(v); err == nil || !strings.Contains(err.Error(), "other devices") {
		t.Errorf("%v", err)
	}
}

// attachCopy attaches a block-wise copy of the disk, as it is on its device
// now, and returns the device and its image.
func attachCopy(t *testing.T, d disk) (device, image string) {
	t.Helper()
	image = filepath.Join(filepath.Dir(d.Dir), "copy")
	scratch.Run(t, "dd", "if="+d.Devices[0], "of="+image, "bs=1M", "iflag=direct", "conv=sparse", "status=none")
	device = strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { scratch.Run(t, "losetup", "--detach", device) })
	// The kernel may remember what earlier lay on this device.
	_ = exec.Command("btrfs", "device", "scan", "--forget", device).Run()
	return device, image
}

func sum(t *testing.T, path string) string {
	t.Helper()
	return strings.Fields(scratch.Run(t, "sha256sum", path))[0]
}

// Two mounted file systems with one UUID, the second a block-wise copy of the
// first with all that it had of ours: the first is taken and cleaned up as
// ever, the copy is refused and nothing in it is touched.
func TestCopy(t *testing.T) {
	if _, err := os.Stat("/sys/fs/btrfs/features/temp_fsid"); err != nil {
		t.Skip("skipped: before Linux 6.7 a copy cannot be mounted beside the original")
	}
	d := newDisk(t)
	d.create("@")
	dead(t, d, "copied", "@") // on both
	scratch.Run(t, "sync", "-f", d.Dir)
	device, _ := attachCopy(t, d)
	dir := filepath.Join(filepath.Dir(d.Dir), "mountcopy")
	must(t, os.Mkdir(dir, 0o755))
	scratch.Run(t, "mount", device, dir)
	mounted := true
	t.Cleanup(func() {
		if mounted {
			scratch.Run(t, "umount", dir)
		}
	})
	theirs := func() string { return scratch.Run(t, "btrfs", "subvolume", "list", "-u", dir) }
	before := theirs()

	original, copied := find(t, d.Dir), find(t, dir)
	if original.UUID != copied.UUID || original.ID == copied.ID {
		t.Fatalf("%s and %s", original.ID, copied.ID)
	}
	refused(t, copied, problem.SnapshotFailed)
	if err := New(host).Check(t.Context(), copied); !strings.Contains(fmt.Sprint(err), "block-wise copy") || !strings.Contains(fmt.Sprint(err), device) {
		t.Errorf("%v", err)
	}
	s := take(t, of(original, "@"))[0]
	reads(t, s, map[string]string{"@": "@"})
	if got := s.Parts()[0].Volume; !strings.HasPrefix(string(got), original.UUID+"/") {
		t.Errorf("part of %s", got)
	}

	left, err := New(host).Leftovers(t.Context())
	if !problem.Is(err, problem.LeftoverForeign) || !strings.Contains(fmt.Sprint(err), device) || len(left) != 1 {
		t.Errorf("%d leftovers, %v", len(left), err)
	}
	for _, l := range left {
		must(t, l.Release(t.Context()))
	}
	must(t, s.Release(t.Context()))
	nothingLeft(t, d)
	if after := theirs(); after != before {
		t.Errorf("the copy has\n%s\nand had\n%s", after, before)
	}

	// Alone it is what it is, and what was copied is a leftover as any.
	scratch.Run(t, "umount", dir)
	mounted = false
	at := mountedAt(t, d)
	scratch.Run(t, "umount", at...)
	// Or the copy stays one. Namespaces of other tests may keep it for a while.
	forget := func() error { return exec.Command("btrfs", "device", "scan", "--forget", d.Devices[0]).Run() }
	for end := time.Now().Add(30 * time.Second); forget() != nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	scratch.Run(t, "mount", device, dir)
	mounted = true
	left, err = New(host).Leftovers(t.Context())
	if err != nil || len(left) != 1 {
		t.Errorf("alone: %d leftovers, %v", len(left), err)
	}
	for _, l := range left {
		must(t, l.Release(t.Context()))
	}
	if after := theirs(); strings.Contains(after, folderName) {
		t.Errorf("left on it:\n%s", after)
	}
}

// mountedAt is where the disk is mounted.
func mountedAt(t *testing.T, d disk) []string {
	t.Helper()
	var points []string
	for line := range strings.Lines(scratch.Run(t, "findmnt", "--noheadings", "--output", "TARGET", "--raw", "--source", d.Devices[0])) {
		points = append(points, strings.TrimSpace(line))
	}
	return points
}

// Who owns the top level can rename our folder. What is in it is found all the
// same; another .stillpoint of his is not believed.
func TestFolderRenamed(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	dead(t, d, "hidden", "@")
	must(t, os.Chown(d.Dir, 1000, 1000))
	must(t, os.Rename(d.in(folderName), d.in("mine")))
	must(t, os.Mkdir(d.in(folderName), 0o755))
	must(t, os.Chown(d.in(folderName), 1000, 1000))
	p := New(host)
	left, err := p.Leftovers(t.Context())
	if !problem.Is(err, problem.LeftoverForeign) || len(left) != 1 {
		t.Fatalf("%d leftovers, %v", len(left), err)
	}
	must(t, os.Rename(d.in("mine"), d.in("again"))) // and once more, before it is released
	must(t, left[0].Release(t.Context()))
	must(t, os.Remove(d.in(folderName)))
	if n := names(t, d.Dir); n != "@" {
		t.Errorf("left: %s", n)
	}
	left, err = p.Leftovers(t.Context())
	if err != nil || len(left) != 0 {
		t.Errorf("%d leftovers, %v", len(left), err)
	}
}

// Renamed while the set lives: it can be read, and goes.
func TestFolderRenamedMeanwhile(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	pending := prepare(t, of(find(t, d.Dir), "."))
	must(t, os.Rename(d.in(folderName), d.in("mine")))
	must(t, os.Symlink("elsewhere", d.in(folderName)))
	s := commit(t, pending)[0]
	reads(t, s, map[string]string{"@": "@"})
	must(t, os.Remove(d.in(folderName)))
	left, err := New(host).Leftovers(t.Context())
	if err != nil || len(left) != 0 {
		t.Errorf("%d leftovers of a living set, %v", len(left), err)
	}
	must(t, s.Release(t.Context()))
	if n := names(t, d.Dir); n != "@" {
		t.Errorf("left: %s", n)
	}
}

// What a user has that looks as ours is no concern of ours where it is not in
// our place.
func TestLooksRenamed(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	must(t, os.MkdirAll(d.in("backups/daily/123"), 0o700))
	d.keepOld("@", "backups/daily/123/"+snapshotName)
	left, err := New(host).Leftovers(t.Context())
	if err != nil || len(left) != 0 {
		t.Errorf("%d leftovers, %v", len(left), err)
	}
}

// A swap file's path may lead to anything by now.
func TestLocate(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	fifo := d.in("@/fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	start := time.Now()
	for _, path := range []string{fifo, "/dev/null", d.Dir, d.in("none")} {
		if _, err := locate(t.Context(), path); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
	if took := time.Since(start); took > answerLimit/2 {
		t.Errorf("it took %s", took)
	}
	s, err := locate(t.Context(), d.in("@/in"))
	must(t, err)
	if want := find(t, d.in("@")).UUID; s.fs.String() != want || s.id == btrfs.TopLevel {
		t.Errorf("%+v", s)
	}
	// Something that does not answer.
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	defer f.Close() // ends what waits
	silent, err := mount.Open("fuse", []mount.Option{{Key: "fd", Value: fmt.Sprint(f.Fd())}, {Key: "rootmode", Value: "40000"},
		{Key: "user_id", Value: "0"}, {Key: "group_id", Value: "0"}}, 0)
	must(t, err)
	defer silent.Close()
	start = time.Now()
	_, err = locate(t.Context(), fmt.Sprintf("/proc/self/fd/%d/swapfile", silent.Fd()))
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > answerLimit+time.Second {
		t.Errorf("%v after %s", err, took)
	}
}

// A limit of the host has its own words, and is not a full disk. It is tried in
// a user namespace, which has limits of its own.
func TestNoNamespace(t *testing.T) {
	scratch.NeedRoot(t)
	const marker = "STILLPOINT_TEST_LIMITED"
	if os.Getenv(marker) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoNamespace$", "-test.v")
		cmd.Env = append(os.Environ(), marker+"=yes")
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	must(t, os.WriteFile("/proc/sys/user/max_mnt_namespaces", []byte("0"), 0))
	_, err := newSpace()
	hasCode(t, "limit", err, problem.SnapshotFailed)
	if !strings.Contains(fmt.Sprint(err), "user.max_mnt_namespaces") {
		t.Error(err)
	}
}
