package backup

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

// packs are the files of the repository that hold data.
func (r *rig) packs() (paths []string) {
	r.Helper()
	r.must(filepath.WalkDir(r.repo, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(r.repo, path); err == nil && !d.IsDir() && strings.HasPrefix(rel, "p") {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

// What damaged data hits is repository-damaged, in verify and in restore;
// everything else comes back.
func TestRestoreOfDamagedData(t *testing.T) {
	r := newRig(t)
	for i := range 6 {
		r.random(fmt.Sprintf("src/dir/file%d", i), 5*mib)
	}
	r.some()
	r.backup(Options{})
	r.write("src/dir/later", "x")
	r.backup(Options{})
	packs := r.packs()
	if len(packs) < 2 {
		t.Fatalf("only %d packs", len(packs))
	}
	// A large one: most of a small one is padding.
	size := func(p string) int64 {
		info, err := os.Stat(p)
		r.must(err)
		return info.Size()
	}
	pack := slices.MaxFunc(packs, func(a, b string) int { return cmp.Compare(size(a), size(b)) })
	b, err := os.ReadFile(pack)
	r.must(err)
	b[len(b)/2] ^= 1
	r.must(os.WriteFile(pack, b, 0o600))

	if bad := r.verify(false); len(bad) > 0 {
		t.Errorf("without reading the data: %q", bad)
	}
	bad := r.verify(true)
	if len(bad) != 2 { // one file, in two backups
		t.Fatalf("damaged: %q", bad)
	}
	_, live, _ := strings.Cut(bad[0], ":")
	to := r.path("to")
	for range 2 { // and a second run does not take what is missing for there
		rep, err := r.restoreTo("latest", to)
		r.must(err)
		r.wantStatus(rep, job.CompleteWithExceptions, problem.RepositoryDamaged)
		x := r.exceptions(rep)
		if len(x) != 1 || x["to"+live] != problem.RepositoryDamaged {
			t.Errorf("exceptions %v, want to%s", x, live)
		}
		if _, err := os.Lstat(to + live); err == nil {
			t.Errorf("%s is there", live)
		}
	}
	info, err := os.Stat(filepath.Dir(live))
	r.must(err)
	r.must(os.Remove(live))
	r.must(os.Chtimes(filepath.Dir(live), info.ModTime(), info.ModTime()))
	r.same(r.path("src"), to+r.path("src"))
	noTemporaries(t, to)
}

func noTemporaries(t *testing.T, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.Contains(d.Name(), ".stillpoint-") || strings.Contains(d.Name(), ".tmp.")) {
			t.Errorf("left: %s", path)
		}
		return nil
	})
}

// A repository that cannot be opened fails the job with its code, and nothing
// of it changes.
func TestRepositoryRefused(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.some()
	r.backup(Options{})
	for name, c := range map[string]struct {
		password string
		damage   func()
		code     problem.Code
	}{
		"wrong password":      {"wrong", func() {}, problem.PasswordWrong},
		"empty password":      {"", func() {}, problem.PasswordMissing},
		"index cut off":       {password, func() { r.each("x", func(p string) { r.must(os.Truncate(p, 20)) }) }, problem.RepositoryDamaged},
		"format file missing": {password, func() { r.must(os.Remove(r.repo + "/kopia.repository.f")) }, problem.RepositoryDamaged},
		"everything missing":  {password, func() { r.must(os.RemoveAll(r.repo)) }, problem.NotARepository},
	} {
		whole := r.path("whole")
		command(t, "cp", "-a", r.repo, whole)
		c.damage()
		before := ""
		if _, err := os.Stat(r.repo); err == nil {
			before = command(t, "tar", "-C", r.repo, "-cf-", ".")
		}
		open := func(ctx context.Context) (*repository.Repository, error) {
			return repository.Open(ctx, r.repo, c.password, repository.Options{Identity: r.id})
		}
		backup := func() (*job.Report, error) { return r.Backup(t.Context(), open, r.options(Options{})) }
		restore := func() (*job.Report, error) {
			return r.Restore(t.Context(), open, RestoreOptions{Choose: r.choose("latest"), To: r.path("to"), Progress: &RestoreProgress{}})
		}
		for _, run := range []func() (*job.Report, error){backup, restore} {
			rep, err := run()
			if got := problem.CodeOf(err); got != c.code {
				t.Errorf("%s: code %q, want %q (%v)", name, got, c.code, err)
			}
			r.wantStatus(rep, job.Failed, c.code)
		}
		if before != "" && command(t, "tar", "-C", r.repo, "-cf-", ".") != before {
			t.Errorf("%s: the repository changed", name)
		}
		if _, err := os.Stat(r.path("to")); err == nil {
			t.Errorf("%s: the target was made", name)
		}
		r.must(os.RemoveAll(r.repo))
		r.must(os.Rename(whole, r.repo))
	}
	r.sound()
}

// each calls do with every file of the repository whose folder begins so.
func (r *rig) each(prefix string, do func(path string)) {
	r.Helper()
	var paths []string
	r.must(filepath.WalkDir(r.repo, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(r.repo, path); err == nil && !d.IsDir() && strings.HasPrefix(rel, prefix) {
			paths = append(paths, path)
		}
		return err
	}))
	for _, p := range slices.Compact(paths) {
		do(p)
	}
}

// Nothing replaces a format file that is gone, neither we nor the stock
// program: the message must promise no more than a copy.
func TestFormatFile(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.some()
	r.backup(Options{})
	k := r.kopia()
	file := r.repo + "/kopia.repository.f"
	saved, err := os.ReadFile(file)
	r.must(err)
	r.must(os.Remove(file))
	_, err = r.open(t.Context())
	r.wantCode(err, problem.RepositoryDamaged)
	if out, err := exec.Command(k.program, "--config-file="+r.path("none"), "repository", "repair", "filesystem", "--path="+r.repo).CombinedOutput(); err == nil {
		t.Errorf("the stock program can repair it, so say so: %s", out)
	}
	r.must(os.WriteFile(file, saved, 0o600))
	r.sound()
	r.same(r.path("src"), r.restore("latest"))
}
