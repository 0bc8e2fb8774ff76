package backup

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
)

// small mounts a memory file system of so many MiB.
func small(t *testing.T, dir string, size int) {
	t.Helper()
	scratch.NeedRoot(t)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", size), "tmpfs", dir)
	t.Cleanup(func() { command(t, "umount", dir) })
}

// The repository's file system fills up in the middle of a backup; earlier
// backups restore, nothing half is listed or left, however often it is tried,
// and after making room the next run is good.
func TestRepositoryFull(t *testing.T) {
	notShort(t)
	for _, fs := range []string{"tmpfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			r := newRig(t)
			r.must(os.RemoveAll(r.repo))
			if fs == "tmpfs" {
				small(t, r.path("small"), 192)
				r.repo = r.path("small/repo")
			} else {
				r.repo = scratch.New(t, fs, 200*mib).Dir + "/repo"
			}
			r.create()
			r.some()
			r.backup(Options{})
			filler := filepath.Dir(r.repo) + "/filler"
			r.must(os.WriteFile(filler, make([]byte, 130*mib), 0o600))
			used := r.stored()
			r.big(30) // 120 MiB
			for _, o := range []Options{{}, {Parallel: 1}, {Checkpoint: 20 * time.Millisecond}} {
				rep, err := r.try(o)
				r.wantCode(err, problem.RepositoryFull)
				r.wantStatus(rep, job.Failed, problem.RepositoryFull)
				if len(err.Error()) > 300 {
					t.Errorf("says: %v", err)
				}
				if bs := r.list(); len(bs) != 1 {
					t.Errorf("listed: %+v", bs)
				}
				if now := r.stored(); o.Checkpoint == 0 && now > used+mib {
					t.Errorf("%d MiB that nothing leads to are left: %q", (now-used)/mib, r.files())
				}
				r.sound()
				r.same(r.path("src/dir1"), r.restore("latest")+"/dir1")
				noTemporaries(t, r.repo)
			}
			r.must(os.Remove(filler))
			if rep := r.backup(Options{Checkpoint: time.Hour}); rep.Total.BytesStored > 110*mib {
				t.Errorf("what the last run had stored was stored again: %+v", rep.Total)
			}
			if n := r.checkpoints(r.path("src")); n > 0 {
				t.Errorf("%d checkpoints are left", n)
			}
			r.same(r.path("src"), r.restore("latest"))
			r.sound()
		})
	}
}

// files are the names of all files of the repository.
func (r *rig) files() (names []string) {
	r.each("", func(path string) {
		rel, _ := filepath.Rel(r.repo, path)
		names = append(names, rel)
	})
	return names
}

// A repository with no room at all cannot be made, and what was begun does not
// look like one that works.
func TestCreateFull(t *testing.T) {
	notShort(t)
	dir := t.TempDir()
	small(t, dir, 1)
	f, err := os.Create(dir + "/filler")
	if err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	f.Close()
	err = repository.Create(context.Background(), dir+"/repo", password, repository.Options{})
	if got := problem.CodeOf(err); got != problem.RepositoryFull {
		t.Errorf("code %q: %v", got, err)
	}
	if err := os.Remove(dir + "/filler"); err != nil {
		t.Fatal(err)
	}
	err = repository.Create(context.Background(), dir+"/repo", password, repository.Options{})
	if err != nil {
		t.Errorf("the same command, after room was made: %v", err)
	}
}

// The target fills up in the middle of a restore: nothing half is there under
// a real name, and the same command goes on after room was made.
func TestTargetFull(t *testing.T) {
	notShort(t)
	for _, fs := range []string{"tmpfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			r := newRig(t)
			r.some()
			r.big(30)
			r.backup(Options{})
			var to string
			if fs == "tmpfs" {
				to = r.path("to")
				small(t, to, 64)
			} else {
				to = scratch.New(t, fs, 200*mib).Dir
			}
			f, err := os.Create(to + "/filler")
			r.must(err)
			if fs == "ext4" {
				r.must(syscall.Fallocate(int(f.Fd()), 0, 0, 120*mib))
			}
			f.Close()
			rep, err := r.restoreTo("latest", to)
			r.wantCode(err, problem.TargetFull)
			r.wantStatus(rep, job.Failed, problem.TargetFull)
			made := r.whole(to)
			if made == 0 {
				t.Error("nothing was restored")
			}
			noTemporaries(t, to)

			r.must(os.Remove(to + "/filler"))
			if fs == "tmpfs" {
				command(t, "mount", "-o", "remount,size=200m", to)
			}
			rep, err = r.restoreTo("latest", to)
			r.must(err)
			r.wantStatus(rep, job.Complete, "")
			if rep.Total.FilesReused < int64(made) {
				t.Errorf("%d files were there, %d were kept", made, rep.Total.FilesReused)
			}
			r.same(r.path("src"), to+r.path("src"))
		})
	}
}

// whole fails where a file below dir is not what it is in src, and returns how
// many there are.
func (r *rig) whole(dir string) (n int) {
	r.Helper()
	src := r.path("src")
	_ = filepath.WalkDir(dir+src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		got, _ := os.ReadFile(path)
		want, _ := os.ReadFile(strings.TrimPrefix(path, dir))
		if string(got) != string(want) {
			r.Errorf("%s has %d bytes, want %d", path, len(got), len(want))
		}
		return nil
	})
	return n
}
