package tree

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// TestDamagedFile reads a file whose blocks went bad below btrfs, which sees
// that by its checksums.
func TestDamagedFile(t *testing.T) {
	v := scratch.New(t, "btrfs", 320*scratch.MiB)
	mark := []byte("a mark that is nowhere else on this volume, 0123456789\n")
	content := bytes.Repeat(mark, 4096)
	if err := os.WriteFile(filepath.Join(v.Dir, "bad"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	place(t, v.Dir, "good")
	run(t, "umount", v.Dir)
	damage(t, v.Devices[0], mark)
	v.Dir = v.Mount(t, "")

	n, err := Open(Source{Path: "/live", Root: v.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	e, err := n.Dir.Stat("bad")
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.Dir.OpenFile(e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.ReadAt(make([]byte, e.Size), 0)
	wantCode(t, err, problem.FileUnreadable)
	if !errors.Is(err, syscall.EIO) || !strings.HasPrefix(err.Error(), "/live/bad: ") {
		t.Errorf("error %v", err)
	}
	if got := readAll(t, n.Dir, "good"); got != "good" {
		t.Errorf("the other file reads %q", got)
	}
}

// damage changes a byte on a device, some way behind where the text begins.
func damage(t *testing.T, device string, text []byte) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(all, text)
	if at < 0 {
		t.Fatal("the content is not on the device")
	}
	_, err = f.WriteAt([]byte("X"), int64(at+100_000))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestFullTarget fills a small volume: the file that does not fit is not there
// at all, and what was complete stays.
func TestFullTarget(t *testing.T) {
	v := scratch.New(t, "ext4", 16*scratch.MiB)
	m := openTarget(t, v.Dir).Root()
	half := strings.Repeat("fits", 1<<20)
	if _, _, err := makeFile(m, ourEntry("fits", File, ours), half, Never); err != nil {
		t.Fatal(err)
	}
	_, _, err := makeFile(m, ourEntry("too-large", File, ours), strings.Repeat(half, 8), Never)
	wantCode(t, err, problem.TargetFull)
	var st syscall.Statfs_t
	if err := syscall.Statfs(v.Dir, &st); err != nil {
		t.Fatal(err)
	}
	if used := (st.Blocks - st.Bfree) * uint64(st.Bsize); used > 8<<20 {
		t.Errorf("%d bytes are still used", used)
	}
	names, err := os.ReadDir(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n.Name() != "fits" && n.Name() != "lost+found" {
			t.Errorf("%q is there", n.Name())
		}
	}
	if err := m.target.Close(); err != nil {
		t.Error(err)
	}
}

// TestRefusedNames: what the file system cannot hold costs nothing else.
func TestRefusedNames(t *testing.T) {
	m := openTarget(t, t.TempDir()).Root()
	long := strings.Repeat("n", 256)
	_, _, err := makeFile(m, ourEntry(long, File, ours), "x", Never)
	wantCode(t, err, problem.TargetRefused)
	_, _, err = m.Dir(ourEntry(long, Directory, ours), Never)
	wantCode(t, err, problem.TargetRefused)
	e := ourEntry("link", Symlink, ours)
	e.Target = strings.Repeat("x", 5000)
	_, _, err = m.Symlink(e, Never)
	wantCode(t, err, problem.TargetRefused)
	e = ourEntry("huge", File, ours)
	e.Size = 1<<63 - 1
	f, _, err := m.File(e, Never)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Commit()
	wantCode(t, err, problem.TargetRefused)
	if got := describe(t, m.Path()); got != "" {
		t.Errorf("something was made: %q", got)
	}
}

// TestReadOnlyTarget: what cannot be written is not taken for anything else.
func TestReadOnlyTarget(t *testing.T) {
	v := scratch.New(t, "ext4", 16*scratch.MiB)
	place(t, v.Dir, "dir/")
	run(t, "mount", "-o", "remount,ro", v.Dir)
	target := openTarget(t, v.Dir)
	_, _, err := makeFile(target.Root(), ourEntry("x", File, ours), "x", Never)
	wantCode(t, err, problem.TargetLost)
	_, _, err = target.Root().Dir(ourEntry("x", Directory, ours), Never)
	wantCode(t, err, problem.TargetLost)
	_, err = target.Root().Finish(ourEntry("", Directory, ours))
	wantCode(t, err, problem.TargetLost)
	if err := target.Close(); err != nil {
		t.Error(err)
	}
}

// TestCoarseTimes restores twice to a file system that keeps whole seconds up
// to 2038: what it could not keep is told, and the second run finds everything
// the same.
func TestCoarseTimes(t *testing.T) {
	v := scratch.New(t, "ext4", 16*scratch.MiB, scratch.Format("-I", "128"))
	for _, want := range []Outcome{Made, Same} {
		target := openTarget(t, v.Dir)
		outcome, unset, err := makeFile(target.Root(), ourEntry("x", File, ours), "x", Never)
		if outcome != want || err != nil || len(unset) > 0 {
			t.Errorf("%s, %v, %v", outcome, unset, err)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
	target := openTarget(t, v.Dir)
	_, unset, err := makeFile(target.Root(), ourEntry("late", File, ours.AddDate(50, 0, 0)), "x", Never)
	if err != nil || len(unset) != 1 || unset[0].What != "times" || problem.CodeOf(unset[0].Err) != problem.AttributeUnset {
		t.Errorf("%v, %v", unset, err)
	}
	outcome, _, err := makeFile(target.Root(), ourEntry("x", File, ours.Add(time.Second)), "x", Never)
	if outcome != KeptDifferent {
		t.Errorf("%s, %v", outcome, err)
	}
	if err := target.Close(); err != nil {
		t.Error(err)
	}
}

// TestInheritance restores into a directory that gives its ACL, its
// compression and its group to everything in it.
func TestInheritance(t *testing.T) {
	v := scratch.New(t, "btrfs", 320*scratch.MiB)
	from, to := filepath.Join(v.Dir, "from"), filepath.Join(v.Dir, "to/here")
	place(t, v.Dir, "to/")
	run(t, "setfacl", "-m", "u:3:rwx,d:u:4:rwx", filepath.Dir(to))
	run(t, "chattr", "+c", filepath.Dir(to))
	run(t, "chgrp", "77", filepath.Dir(to))
	run(t, "chmod", "2777", filepath.Dir(to))
	place(t, from, "file", "empty/", "dir/file")
	copyTree(t, Source{Path: "/live", Root: from}, to)
	for _, command := range []string{"find . | sort | xargs getfacl", "lsattr -R | sort", "find . -printf '%p %m %U %G\n' | sort"} {
		want, got := run(t, "bash", "-c", "cd "+from+" && "+command), run(t, "bash", "-c", "cd "+to+" && "+command)
		if got != want {
			t.Errorf("%s:\n%s", command, firstDifference(want, got))
		}
	}
}
