package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/config"
	"stillpoint/internal/repository"
)

// A caller is who calls the program, in a world of their own, reading live files.
type caller struct {
	*testing.T
	dir string
	env []string
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	u := &caller{T: t, dir: t.TempDir()}
	u.env = append(os.Environ(), "STILLPOINT_REPO="+u.dir+"/repo", "STILLPOINT_PASSWORD=secret", "STILLPOINT_STATE="+u.dir+"/state")
	u.must("init")
	return u
}

func (u *caller) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	u.Cleanup(cancel)
	c := exec.CommandContext(ctx, "stillpoint", args...)
	c.Env, c.Dir = u.env, u.dir
	return c
}

func (u *caller) must(args ...string) string {
	u.Helper()
	out, err := u.command(args...).CombinedOutput()
	if err != nil {
		u.Fatalf("stillpoint %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// checkpointed waits until so many files of data are in a checkpoint.
func (u *caller) checkpointed(files int64) {
	u.Helper()
	host, err := os.Hostname()
	if err != nil {
		u.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		repo, err := repository.Open(u.Context(), u.dir+"/repo", "secret", repository.Options{Identity: repository.Identity{Host: host, User: "root"}})
		if err != nil {
			u.Fatal(err)
		}
		ts, err := repo.Previous(u.Context(), u.dir+"/data")
		repo.Close(u.Context())
		if err != nil {
			u.Fatal(err)
		}
		for _, t := range ts {
			if t.Incomplete && t.Root.Summary != nil && t.Root.Summary.TotalFileCount >= files {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	u.Fatal("no checkpoint has all files")
}

// A job that is killed is one that died: who follows it is told, and `job retry`
// goes on where it was.
func TestJobDies(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: the identity of the backup is that of root")
	}
	u := newCaller(t)
	const files, size = 20, 64 << 10
	fill := rand.NewChaCha8([32]byte{1})
	for i := range files {
		b := make([]byte, size)
		fill.Read(b)
		path := fmt.Sprintf("%s/data/%d/file", u.dir, i)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// This one is waited for, so that the job is still there to be killed.
	held, err := os.Create(u.dir + "/data/held")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	time.Sleep(2100 * time.Millisecond) // what is younger would be read again: repository.granule

	backup := u.command("backup", "data", "--provider", "none", "--open-files", "wait:10m", "--checkpoint", "100ms", "--exceptions", "none")
	if err := backup.Start(); err != nil {
		t.Fatal(err)
	}
	u.checkpointed(files)
	if out := u.must("job", "show"); !strings.Contains(out, "running, no report; for ") {
		t.Error(out)
	}
	follow := u.command("job", "log", "--follow")
	var told strings.Builder
	follow.Stdout = &told
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	if err := backup.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = backup.Wait()
	if err := follow.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(told.String(), "settings: ") || !strings.Contains(told.String(), "died, no report [job-died]") {
		t.Error(told.String())
	}
	if out := u.must("job", "list", "--failed"); !strings.Contains(out, "  died    job-died") {
		t.Error(out)
	}
	held.Close()
	out := u.must("job", "retry")
	if !strings.Contains(out, "an interrupted job was picked up again") || !strings.Contains(out, fmt.Sprintf("%d files, 1.2 MiB, were not read or sent again", files)) {
		t.Error(out)
	}
	if out := u.must("job", "list", "--failed"); !strings.Contains(out, "job-died") {
		t.Error(out)
	}
}

// A volume that no snapshot can be taken of is read live where that was chosen,
// beside one that is read live by its path alone, and its open files are treated.
func TestOpenFilesInMemory(t *testing.T) {
	u := newCaller(t)
	memory, err := os.MkdirTemp("/dev/shm", "stillpoint-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	disk := u.dir + "/data"
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{memory + "/closed", memory + "/open", disk + "/other"} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(memory+"/open", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := u.command("backup", memory, disk, "--provider", disk+"=none").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "explain volume-memory") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = u.command("backup", memory, disk, "--provider", disk+"=none", "--open-files", "skip").CombinedOutput()
	if x, ok := err.(*exec.ExitError); !ok || x.ExitCode() != exitExceptions {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "read live, without a snapshot, as chosen (open_files: skip)") {
		t.Errorf("%s", out)
	}
	out = []byte(u.must("ls", "latest:/", "-R"))
	for path, there := range map[string]bool{memory + "/closed": true, memory + "/open": false, disk + "/other": true} {
		if strings.Contains(string(out), path+"\n") != there {
			t.Errorf("%s is not as it should be:\n%s", path, out)
		}
	}
	if out := u.must("job", "show", "--exceptions"); out != memory+"/open: open for writing, and left out (open_files: skip) [file-open]\n" {
		t.Error(out)
	}
}

// The flags of a backup are those of the table of settings, with their defaults.
func TestSettingsHaveFlags(t *testing.T) {
	c := newBackup(newEnv())
	for _, k := range config.Keys() {
		if k.Flag == "" {
			continue
		}
		f := c.Flags().Lookup(k.Flag)
		if f == nil || f.Shorthand != k.Short || f.Usage == "" {
			t.Errorf("%s: %+v", k.Name, f)
			continue
		}
		if k.Default != "" && k.Type != config.List && k.Check(f.DefValue) != nil {
			t.Errorf("%s: the default of its flag is %q", k.Name, f.DefValue)
		}
		if want := strings.ReplaceAll(strings.TrimSuffix(k.Name, ".times"), "_", "-"); strings.ReplaceAll(want, ".", "-") != k.Flag {
			t.Errorf("%s has the flag %s", k.Name, k.Flag)
		}
	}
}
