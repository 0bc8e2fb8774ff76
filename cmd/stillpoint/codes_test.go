package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// TestCodes makes the failures of the catalogue happen, each by its own cause,
// and looks at what the program ends with: the code is in its report, or in the
// message. What other tests provoke on their way is not here; provoked_test.go
// compares all with the catalogue.
func TestCodes(t *testing.T) {
	p := newProgram(t)
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"runs", p.runs}, {"repositories", p.repositories}, {"files", p.liveFiles}, {"targets", p.targets},
		{"planning", p.planning}, {"network", p.network}, {"btrfs", p.btrfs}, {"twin", p.twin},
		{"caches", p.caches}, {"unshielded", p.unshielded}, {"frozen", p.frozen}, {"torn", p.torn}, {"gone", p.gone}, {"lost", p.lostVolume},
		{"scripts", p.scripts}, {"sqlite", p.sqlite}, {"redis", p.redis},
	} {
		t.Run(c.name, c.test)
	}
}

// ends runs the program, which must end with this exit code and name this code.
func (p *program) ends(want problem.Code, exit int, args ...string) {
	p.t.Helper()
	p.ended(want, exit, p.command(nil, args...))
}

// ended is ends for a command that is made already.
func (p *program) ended(want problem.Code, exit int, c *exec.Cmd) {
	p.t.Helper()
	out, err := c.CombinedOutput()
	p.judge(want, exit, c.Args[1:], out, err)
}

func (p *program) judge(want problem.Code, exit int, args []string, out []byte, err error) {
	p.t.Helper()
	record(p.t, args, out)
	got := 0
	if x := (*exec.ExitError)(nil); errors.As(err, &x) {
		got = x.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	if got != exit || !slices.Contains(endedWith(args, out), want) {
		p.t.Errorf("stillpoint %s ends with %d, not with %d and %s:\n%s", strings.Join(args, " "), got, exit, want, out)
	}
}

// with is the program in another environment.
func (p *program) with(t *testing.T, env ...string) *program {
	other := *p
	other.t, other.env = t, append(slices.Clone(p.env), env...)
	return &other
}

// during runs the program, and does something while that waits at a fault point.
func (p *program) during(point string, do func(), want problem.Code, exit int, args ...string) {
	p.t.Helper()
	reached := filepath.Join(p.t.TempDir(), "reached")
	c := p.command([]string{"STILLPOINT_FAULT=wait:" + point, "STILLPOINT_FAULT_REACHED=" + reached}, args...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for there := false; !there; {
		select {
		case err := <-ended:
			p.t.Fatalf("%s was not reached: %v\n%s", point, err, out.String())
		case <-time.After(5 * time.Millisecond):
			_, err := os.Lstat(reached)
			there = err == nil
		}
	}
	do()
	if err := os.Remove(reached); err != nil {
		p.t.Fatal(err)
	}
	err := <-ended
	p.judge(want, exit, args, out.Bytes(), err)
}

// withoutRights is the program as root who may do nothing but what the owner of
// a file may.
func (p *program) withoutRights(args ...string) *exec.Cmd {
	c := p.command(nil, args...)
	c.Args = append([]string{"setpriv", "--bounding-set=-all", "--inh-caps=-all", p.path}, args...)
	var err error
	if c.Path, err = exec.LookPath("setpriv"); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// mounted mounts a file system of the kernel's own, and returns where.
func mounted(t *testing.T, kind, options string) string {
	t.Helper()
	dir := t.TempDir()
	scratch.Run(t, "mount", "-t", kind, "-o", options, "none", dir)
	t.Cleanup(func() { scratch.Run(t, "umount", "-l", dir) })
	return dir
}

// filled makes a folder with one file of so many random bytes.
func filled(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, filepath.Join(dir, "file"), size)
	return dir
}

func fill(t *testing.T, path string, size int) {
	t.Helper()
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b) // so that nothing is made smaller
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *program) runs(t *testing.T) {
	q := p.with(t)
	wrong := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(wrong, []byte("wrtiers: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.with(t, "STILLPOINT_CONFIG="+wrong).ends(problem.ConfigWrong, exitFailed, "backup", p.vol.Dir)
	p.with(t, "STILLPOINT_STATE="+wrong).ends(problem.StateLost, exitFailed, "backup", p.vol.Dir)
	q.ended(problem.NotAllowed, exitFailed, q.withoutRights("backup", p.vol.Dir))

	q.killed("backup:planned", "backup", p.vol.Dir)
	var died string
	for _, line := range lines(q.must("job", "list")) {
		if strings.Contains(line, string(problem.JobDied)) {
			died = strings.Fields(line)[0]
		}
	}
	q.must("clean")
	q.ends(problem.JobDied, exitComplete, "job", "show", died)

	q.ambiguous(problem.JobAmbiguous, []string{"clean"}, "job", "list")
}

// ambiguous makes more of what has an id, until two begin with the same letter,
// of which there are 32, and asks for that one.
func (p *program) ambiguous(want problem.Code, more []string, list ...string) {
	p.t.Helper()
	for range 33 {
		seen := map[byte]bool{}
		for _, line := range lines(p.must(list...))[1:] {
			if seen[line[0]] {
				show := []string{"job", "show"}
				if list[0] == "backups" {
					show = []string{"ls"}
				}
				p.ends(want, exitFailed, append(show, line[:1])...)
				return
			}
			seen[line[0]] = true
		}
		p.must(more...)
	}
	p.t.Error("no two ids begin with the same letter")
}

func (p *program) repositories(t *testing.T) {
	data := filled(t, 6*scratch.MiB)
	live := []string{"backup", data, "--provider", "none"}

	small := mounted(t, "tmpfs", "size=4m")
	q := p.with(t, "STILLPOINT_REPO="+filepath.Join(small, "repo"))
	q.must("init")
	q.ends(problem.RepositoryFull, exitFailed, live...)
	scratch.Run(t, "mount", "-o", "remount,ro", small)
	q.ends(problem.RepositoryLost, exitFailed, live...)

	repo := filepath.Join(t.TempDir(), "repo")
	q = p.with(t, "STILLPOINT_REPO="+repo)
	q.must("init")
	q.must(live...)
	q.ambiguous(problem.BackupAmbiguous, live, "backups")

	spoil(t, repo)
	q.ends(problem.RepositoryDamaged, exitFailed, "verify", "--read-data")
}

// spoil changes the largest file below dir.
func spoil(t *testing.T, dir string) {
	t.Helper()
	var largest string
	var size int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Size() > size {
			largest, size = path, fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(largest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(largest, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}
