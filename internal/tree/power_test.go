package tree

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/file"
)

// TestPowerCut cuts the power at any moment of a restore: a copy of the device
// as it was then, with nothing of what was only in memory. Whatever is there
// after it, a further run makes every file right, also under Never.
func TestPowerCut(t *testing.T) {
	from := t.TempDir()
	for i := range 8 {
		for j := range 20 {
			place(t, from, fmt.Sprintf("d%d/f%d", i, j))
		}
		large := []byte(strings.Repeat(fmt.Sprintf("line %d of a large file\n", i), 400_000))
		if err := os.WriteFile(filepath.Join(from, fmt.Sprintf("d%d/large", i)), large, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(from, fmt.Sprintf("d%d/large", i)), filepath.Join(from, fmt.Sprintf("d%d/link", i))); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("f0", filepath.Join(from, fmt.Sprintf("d%d/symlink", i))); err != nil {
			t.Fatal(err)
		}
	}
	for _, fs := range []string{"btrfs", "ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) { testPowerCut(t, fs, from) })
	}
}

func testPowerCut(t *testing.T, fs, from string) {
	cuts := 8
	if testing.Short() {
		cuts = 2
	}
	// XFS copies a file that is written as it is at one moment, by reference.
	outer := scratch.New(t, "xfs", 4*scratch.GiB)
	disk := filepath.Join(outer.Dir, "disk")
	run(t, "truncate", "-s", "768M", disk)
	run(t, map[string]string{"btrfs": "mkfs.btrfs", "ext4": "mkfs.ext4", "xfs": "mkfs.xfs"}[fs], "-q", disk)
	to, unplug := plug(t, fs, disk)
	stop := flushing(t, to)
	p := act(t, "restore", from, filepath.Join(to, "restored"))
	for i := range cuts {
		time.Sleep(rand.N(80 * time.Millisecond))
		run(t, "cp", "--reflink=always", disk, fmt.Sprintf("%s%d", disk, i))
	}
	if err := p.wait(time.Minute); err != nil {
		t.Fatal(err, p.errors)
	}
	stop()
	unplug()
	seen := map[string]int{}
	for i := range cuts {
		plugged, unplug := plug(t, fs, fmt.Sprintf("%s%d", disk, i))
		after := filepath.Join(plugged, "restored")
		damaged(t, from, after, seen)
		c := &copier{overwrite: Never, boot: markBoot + "another"}
		if err := c.tree(Source{Path: "/live", Root: from}, after); err != nil {
			t.Fatal(err)
		}
		for _, err := range c.problems {
			t.Errorf("cut %d: %v", i, err)
		}
		if out := run(t, "rsync", "-naHAXi", "--checksum", "--delete", from+"/", after+"/"); out != "" {
			t.Errorf("cut %d: rsync sees differences:\n%s", i, out)
		}
		if left := temporaryNames(t, after); len(left) > 0 {
			t.Errorf("cut %d left %q", i, left)
		}
		unplug()
	}
	t.Log(seen)
}

// plug mounts an image on a loop device until the test ends or it is unplugged,
// somewhere a janitor looks after.
func plug(t *testing.T, fs, image string) (dir string, unplug func()) {
	t.Helper()
	dir = image + ".mount"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := "loop"
	switch fs {
	case "xfs":
		options += ",nouuid"
	case "ext4", "btrfs":
		options += ",commit=1"
	}
	run(t, "mount", "-t", fs, "-o", options, image, dir)
	unplug = sync.OnceFunc(func() { run(t, "umount", dir) })
	t.Cleanup(unplug)
	return dir, unplug
}

// flushing makes the file system write, as the work of others does.
func flushing(t *testing.T, dir string) (stop func()) {
	f, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-quit:
				f.Close()
				return
			case <-time.After(rand.N(30 * time.Millisecond)):
			}
			if i%3 == 0 {
				_ = file.SyncFS(int(f.Fd()))
				continue
			}
			_, _ = f.WriteString("x")
			_ = f.Sync()
		}
	}()
	return func() { close(quit); <-done }
}

// damaged counts what a loss of power left: files by how much of them is right.
func damaged(t *testing.T, from, to string, seen map[string]int) {
	t.Helper()
	if _, err := os.Stat(to); os.IsNotExist(err) {
		seen["no target yet"]++
		return
	}
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(to, path)
		want, err := os.ReadFile(filepath.Join(from, rel))
		if err != nil {
			seen["temporary"]++
			return nil
		}
		got, err := os.ReadFile(path)
		switch {
		case err != nil:
			seen["unreadable"]++
		case string(got) == string(want):
			seen["whole"]++
		case len(got) == len(want):
			seen["as long, but not whole"]++
		default:
			seen["short"]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMarks: what a run that was cut off has made is doubted until a run has
// gone through all of the directory, whatever else is restored meanwhile.
func TestMarks(t *testing.T) {
	root := place(t, t.TempDir(), "there/theirs", "elsewhere/")
	there := filepath.Join(root, "there")
	if err := errors.Join(os.Chmod(there, 0o750), os.Chmod(root, 0o750)); err != nil {
		t.Fatal(err)
	}
	restored := func(boot string, want Outcome, files ...string) {
		t.Helper()
		target, err := openTargetIn(root, markBoot+boot)
		if err != nil {
			t.Fatal(err)
		}
		target.Keep()
		dirs := map[string]*Maker{}
		for _, f := range files {
			dir, leading := strings.CutSuffix(filepath.Dir(f), "+")
			if dirs[dir] == nil {
				d, _, err := target.Root().Dir(ourEntry(dir, Directory, ours), Never)
				if err != nil {
					t.Fatal(err)
				}
				dirs[dir] = d
			}
			outcome, _, err := makeFile(dirs[dir], ourEntry(filepath.Base(f), File, ours), "content", Never)
			if outcome != want || err != nil {
				t.Errorf("boot %s: %s: %s, want %s, %v", boot, f, outcome, want, err)
			}
			if !leading {
				if _, err := dirs[dir].Finish(ourEntry(dir, Directory, ours)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if boot == "1" { // ends without a Close
			err = target.release()
		} else {
			err = target.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	restored("1", Made, "made/x", "there+/x")
	restored("1", Same, "made/x", "there+/x")
	restored("2", Made, "elsewhere/x")           // another part of the backup
	restored("2", Made, "made+/y", "there+/y")   // and more of the same
	restored("2", Replaced, "made/x", "there/x") // at last
	restored("2", Same, "made/x", "there/x")
	restored("3", Same, "made/x", "there/x")
	if out := run(t, "getfattr", "-R", "-m", "-", "-d", root); out != "" {
		t.Errorf("marks are left:\n%s", out)
	}
	if got := run(t, "stat", "-c", "%a", there, filepath.Join(root, "made")); got != "750\n644\n" {
		t.Errorf("modes are %q", got)
	}
}
