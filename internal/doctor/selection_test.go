package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
)

// A memory file system below a selected path is named where files are expected
// to stay.
func TestSelection(t *testing.T) {
	v := scratch.New(t, "ext4", 64*mib)
	healthy(t, look(t, Selection(subject(t, v.Dir))))
	healthy(t, look(t, Selection(subject(t))))
	cache := filepath.Join(v.Dir, "cache")
	must(t, os.Mkdir(cache, 0o755), syscall.Mount("none", cache, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = syscall.Unmount(cache, syscall.MNT_DETACH) })
	says(t, look(t, Selection(subject(t, v.Dir))), Warning, problem.VolumeMemory, cache, "tmpfs")
	says(t, look(t, Selection(subject(t, cache))), Failure, problem.VolumeMemory, cache)
	table, err := host(t.Context())
	must(t, err)
	s, err := NewSubject(table, []string{v.Dir}, func(path string) bool { return path == cache })
	must(t, err)
	healthy(t, look(t, Selection(s)))
	if _, err := NewSubject(table, []string{v.Dir + "/none"}, nil); !problem.Is(err, problem.PathMissing) {
		t.Errorf("a path that is not there: %v", err)
	}
}

// This kernel has neither FAT nor servers: the mounts are as mountinfo shows them
// elsewhere.
func TestSelectionElsewhere(t *testing.T) {
	table := tableOf(t, "20 1 8:2 / / rw - ext4 /dev/sda2 rw\n21 20 8:1 / /boot/efi rw - vfat /dev/sda1 rw\n"+
		"22 20 0:40 / /srv/nfs rw - nfs4 server:/export rw\n23 20 0:41 / /run rw - tmpfs tmpfs rw\n24 20 0:42 / /proc rw - proc proc rw\n")
	of := func(paths ...string) []Finding {
		s, err := NewSubject(table, paths, nil)
		must(t, err)
		return look(t, Selection(s))
	}
	fs := of("/")
	says(t, fs, Warning, problem.VolumeEFI, "/boot/efi")
	says(t, fs, Warning, problem.VolumeNetwork, "/srv/nfs", "server:/export")
	if len(fs) != 2 {
		t.Errorf("got %+v", fs)
	}
	says(t, of("/boot/efi"), Failure, problem.VolumeEFI)
	says(t, of("/srv/nfs/x"), Failure, problem.VolumeNetwork)
	says(t, of("/run/x"), Failure, problem.VolumeMemory)
	says(t, of("/proc/x"), Failure, problem.VolumeMemory, "makes up")
	healthy(t, of("/home"))
}

// A host of containers has thousands of mounts; of each kind some are named.
func TestSelectionOfThousands(t *testing.T) {
	mounts := "20 1 8:2 / / rw - ext4 /dev/sda2 rw\n"
	for i := range 5000 {
		mounts += fmt.Sprintf("%d 20 0:%d / /srv/%04d rw - tmpfs tmpfs rw\n", 100+i, 100+i, i)
	}
	s, err := NewSubject(tableOf(t, mounts+"99 20 0:99 / /srv/nfs rw - nfs4 server:/export rw\n"), []string{"/"}, nil)
	must(t, err)
	fs := look(t, Selection(s))
	if len(fs) != namedMost+2 {
		t.Errorf("%d findings", len(fs))
	}
	says(t, fs, Warning, problem.VolumeMemory, "/srv/0000", "tmpfs")
	says(t, fs, Warning, problem.VolumeMemory, "and 4990 more", "the last is /srv/4999, which is a memory file system")
	says(t, fs, Warning, problem.VolumeNetwork, "/srv/nfs")
}

func TestSwap(t *testing.T) {
	v := scratch.New(t, "ext4", 64*mib)
	file := filepath.Join(v.Dir, "dir", "swap")
	must(t, os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, make([]byte, 8*mib), 0o600))
	healthy(t, look(t, Swap(subject(t, v.Dir))))
	scratch.Run(t, "mkswap", file)
	scratch.Run(t, "swapon", file)
	t.Cleanup(func() { scratch.Run(t, "swapoff", file) })
	says(t, look(t, Swap(subject(t, v.Dir))), Warning, problem.SwapSelected, file, "7 MiB")
	must(t, os.Mkdir(v.Dir+"/other", 0o755))
	healthy(t, look(t, Swap(subject(t, v.Dir+"/other"))))
}

func TestOthers(t *testing.T) {
	dir := t.TempDir()
	check := func() []Finding { return look(t, Others(subject(t, dir))) }
	put := func(names ...string) {
		t.Helper()
		for _, name := range names {
			path := filepath.Join(dir, name)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("[repository]\nversion = 1\n"), 0o644))
		}
	}
	put("www/config", "www/data", "www/index.html", "www/README", "www/app.sql.txt", "dumps/schema.sql", "a/b/c/d/data.db")
	must(t, os.WriteFile(filepath.Join(dir, "www/config"), []byte("port = 80\n"), 0o644))
	healthy(t, check())

	// The real ones.
	scratch.Run(t, "env", "RESTIC_PASSWORD=x", "restic", "init", "--quiet", "--repo", filepath.Join(dir, "backup", "restic"))
	must(t, repository.Create(t.Context(), filepath.Join(dir, "backup", "ours"), "a secret", repository.Options{}))
	scratch.Run(t, "env", "BORG_BASE_DIR="+t.TempDir(), "borg", "init", "--encryption", "none", filepath.Join(dir, "backup", "borg"))
	scratch.Run(t, "env", "HOME="+t.TempDir(), "duplicity", "full", "--no-encryption", filepath.Join(dir, "www"), "file://"+filepath.Join(dir, "duplicity"))
	scratch.Run(t, "rdiff-backup", "backup", filepath.Join(dir, "www"), filepath.Join(dir, "rdiff"))
	// Files by their names.
	put("old/B2D000001.bkf")
	put("pg/PG_VERSION", "pg/base/1", "pg.sql.gz", "sqlite/app.sqlite3", "sqlite/app.sqlite3.bak")
	fs := check()
	for words, place := range map[string]string{
		"restic": "backup/restic", "Stillpoint": "backup/ours", "borg": "backup/borg", "duplicity": "duplicity", "rdiff": "rdiff", "another backup program": "old/B2D000001.bkf",
		"copy of a database": "pg.sql.gz", "by its name": "sqlite/app.sqlite3.bak",
	} {
		says(t, fs, Warning, problem.BackupInside, filepath.Join(dir, place), words)
	}
	if len(fs) != 8 {
		t.Errorf("%d findings: %+v", len(fs), fs)
	}
	for i := range 2 * namedMost {
		put("more/" + strings.Repeat("x", i+1) + ".bkf")
	}
	says(t, check(), Warning, problem.BackupInside, "and 18 more")
}

// The look is bounded, and says so.
func TestOthersIsBounded(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	w := &search{s: subject(t, dir)} // its time is over
	w.walk(t.Context())
	says(t, w.findings(), OK, "", "there are more")
}
