package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/freeze"
)

// filled makes some files, and returns what they hold.
func (r *rig) filled() map[string][]byte {
	originals := map[string][]byte{}
	for i := range 6 {
		name := fmt.Sprint("file", i)
		originals[name] = bytes.Repeat([]byte{byte('a' + i)}, waySize)
		r.must(os.WriteFile(r.path(name), originals[name], 0o644))
	}
	r.must(exec.Command("sync", "-f", r.dir).Run())
	return originals
}

// run runs a program that must succeed.
func (r *rig) run(name string, args ...string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		r.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// change changes half of what filled made: first and last pages, by name.
func (r *rig) change(originals map[string][]byte, which int) {
	r.Helper()
	for i := which; i < len(originals); i += 2 {
		name := fmt.Sprint("file", i)
		r.writeAt(name, "Z", 0)
		r.writeAt(name, "Z", waySize-1)
	}
}

// A volume that is remounted read-only and back, and one that is unmounted and
// mounted again, stay what they are.
func TestRemounted(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := r.filled()
		s := r.take(nil)
		r.run("mount", "-o", "remount,ro", r.dir)
		if err := os.WriteFile(r.path("file0"), nil, 0); !errors.Is(err, unix.EROFS) {
			t.Errorf("it is not read-only: %v", err)
		}
		r.unmixed(s, originals, true)
		r.run("mount", "-o", "remount,rw", r.dir)
		r.change(originals, 0)
		r.unmixed(s, originals, true)
	})
}

func TestUnmounted(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := r.filled()
		s := r.take(nil)
		t.Cleanup(func() {
			if _, err := os.Stat(r.path("file0")); err != nil {
				r.run("mount", r.target.Volume.Source, r.dir)
			}
		})
		r.change(originals, 0)
		// Whoever is let go may be quicker than who let him go, who has still to
		// close the file.
		for tries := 1; ; tries++ {
			err := unix.Unmount(r.dir, 0)
			if err == nil {
				break
			}
			if tries == 100 {
				t.Fatalf("umount: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		r.unmixed(s, originals, true)
		r.run("mount", r.target.Volume.Source, r.dir)
		r.change(originals, 1)
		r.unmixed(s, originals, true)
		r.must(s.Release(t.Context()))
		s = r.take(nil) // of what is there now
		r.must(os.WriteFile(r.path("file0"), []byte("later"), 0o644))
		if b := r.read(s, "file0"); b[0] != 'Z' || b[1] != 'a' {
			t.Errorf("the next snapshot shows %.10q", b)
		}
	})
}

// A file system that is made larger while there is a snapshot.
func TestGrown(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := r.filled()
		device := r.target.Volume.Source
		image, err := os.ReadFile("/sys/block/" + filepath.Base(device) + "/loop/backing_file")
		r.must(err)
		size := func() uint64 {
			var st unix.Statfs_t
			r.must(unix.Statfs(r.dir, &st))
			return st.Blocks
		}
		was := size()
		s := r.take(nil)
		var shown unix.Statfs_t
		r.must(unix.Statfs(s.Root(), &shown))
		r.change(originals, 0)
		r.must(os.Truncate(strings.TrimSuffix(string(image), "\n"), 600<<20))
		r.run("losetup", "--set-capacity", device)
		if strings.HasSuffix(t.Name(), "/xfs") {
			r.run("xfs_growfs", r.dir)
		} else if out, err := exec.Command("resize2fs", device).CombinedOutput(); err != nil {
			if strings.Contains(string(out), "Permission denied") && lacks(unix.CAP_SYS_RESOURCE) {
				t.Skip("skipped: ext4 is resized with CAP_SYS_RESOURCE only, which this process has not")
			}
			t.Fatalf("resize2fs: %v: %s", err, out)
		}
		if size() <= was {
			t.Error("it is not larger")
		}
		r.must(os.WriteFile(r.path("new"), bytes.Repeat([]byte("n"), 100<<20), 0o600))
		r.change(originals, 1)
		r.unmixed(s, originals, true)
		var now unix.Statfs_t
		r.must(unix.Statfs(s.Root(), &now))
		if now.Blocks != shown.Blocks || now.Bfree != shown.Bfree {
			t.Errorf("the snapshot had %d blocks, %d of them free, and has %d and %d", shown.Blocks, shown.Bfree, now.Blocks, now.Bfree)
		}
	})
}

// lacks tells whether the process has not got a capability.
func lacks(capability int) bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&h, &data[0]) == nil && data[capability/32].Effective&(1<<(capability%32)) == 0
}

// steps takes a snapshot and does something between its steps. What is done
// while the volume is frozen must not write to it.
func (r *rig) steps(held, committed func()) (*target, error) {
	return r.stepsFrom(func() {}, held, committed)
}

// stepsFrom is steps with something before the volume is held, too.
func (r *rig) stepsFrom(prepared, held, committed func()) (*target, error) {
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	ids++
	pending, err := r.p.Prepare(ctx, fmt.Sprint("steps", ids), []snapshot.Target{r.target})
	r.must(err)
	r.Cleanup(func() { r.must(pending.Abort(context.Background())) })
	prepared()
	err = pending.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		held()
		if snaps, err = pending.Commit(ctx); err == nil {
			committed()
		}
	}
	if rerr := pending.Resume(ctx); err == nil {
		err = rerr
	}
	if err != nil {
		return nil, err
	}
	s := snaps[0].(*target)
	r.Cleanup(func() { r.must(s.Release(context.Background())) })
	return s, nil
}

// Another program ends our freeze: the snapshot is lost, and says so.
func TestForeignThaw(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := r.filled()
		root, err := os.Open(r.dir)
		r.must(err)
		defer root.Close()
		f, err := os.OpenFile(r.path("file1"), os.O_RDWR, 0) // hot
		r.must(err)
		defer f.Close()
		nothing := func() {}
		thawed := func() {
			r.must(freeze.Thaw(root))
			// One that waited for the thaw, and one of the page cache.
			_, err := f.WriteAt([]byte("Z"), wayAt)
			r.must(err)
		}
		onlyThawed := func() { r.must(freeze.Thaw(root)) }
		for name, when := range map[string][2]func(){
			"before the instant": {onlyThawed, nothing},
			"after the instant":  {nothing, thawed},
		} {
			s, err := r.steps(when[0], when[1])
			switch {
			case err != nil:
				t.Logf("%s: %v", name, err)
				if code := problem.CodeOf(err); code == "" || code == problem.Uncatalogued {
					t.Errorf("%s: no code", name)
				}
				continue
			case s.Err() == nil:
				t.Errorf("%s: the snapshot is good", name)
			case problem.CodeOf(s.Err()) != problem.SnapshotLost:
				t.Errorf("%s: %v", name, s.Err())
			}
			if b, err := os.ReadFile(s.Root() + "/file2"); err == nil {
				t.Errorf("%s: it can be read: %.10q", name, b)
			}
			r.must(s.Release(t.Context()))
		}
		if frozen, err := freeze.Frozen(root); err != nil || frozen {
			t.Errorf("it is left frozen: %t, %v", frozen, err)
		}
		r.change(originals, 0) // everybody goes on
	})
}

// Another program has frozen the volume: its freeze is not ours to end. We
// wait for it, or give up.
func TestForeignFreeze(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := r.filled()
		root, err := os.Open(r.dir)
		r.must(err)
		defer root.Close()
		frozen := func(d time.Duration) (end func() (early bool)) {
			early := make(chan bool, 1)
			t.Cleanup(func() { _ = freeze.Thaw(root) })
			r.must(freeze.Freeze(root))
			go func() {
				time.Sleep(d)
				early <- freeze.Thaw(root) != nil
			}()
			return func() bool { return <-early }
		}
		r.run("sync", "-f", r.dir)
		end := frozen(500 * time.Millisecond)
		s, err := r.steps(func() {}, func() {})
		if end() {
			t.Error("a short freeze of another program was ended")
		}
		if err != nil {
			t.Errorf("after a short freeze of another program: %v", err)
		} else {
			r.change(originals, 0)
			r.unmixed(s, originals, true)
			r.must(s.Release(t.Context()))
		}

		var began time.Time
		_, err = r.stepsFrom(func() {
			end = frozen(window + 3*time.Second)
			began = time.Now()
		}, func() {}, func() {})
		t.Logf("under a long freeze of another program: %v after %v", err, time.Since(began))
		if code := problem.CodeOf(err); code != problem.Busy {
			t.Errorf("under a freeze of another program: %s, want %s", code, problem.Busy)
		}
		if end() {
			t.Error("a long freeze of another program was ended")
		}
		if now, err := freeze.Frozen(root); err != nil || now {
			t.Errorf("it is left frozen: %t, %v", now, err)
		}
		r.change(originals, 1)
	})
}
