package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/scratch"
	"stillpoint/internal/writer/servertest"
)

// A program is the real binary, built with the fault points, and a world of
// its own: repository, job logs and a btrfs volume.
type program struct {
	t    *testing.T
	path string
	dir  string
	vol  *scratch.Volume
	env  []string
}

func newProgram(t *testing.T) *program {
	t.Helper()
	scratch.NeedRoot(t)
	p := &program{t: t, dir: t.TempDir(), vol: scratch.New(t, "btrfs", 512*scratch.MiB)}
	p.path = filepath.Join(p.dir, "stillpoint-faults")
	built, err := faulty.path()
	if err == nil {
		err = os.Link(built, p.path)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(),
		"STILLPOINT_REPO="+filepath.Join(p.dir, "repo"),
		"STILLPOINT_PASSWORD=secret",
		"STILLPOINT_STATE="+filepath.Join(p.dir, "state"))
	p.must("init")
	return p
}

// A faultyBinary is the program with the fault points. It is built when it is needed
// first, and each test has a link to it.
type faultyBinary struct {
	once sync.Once
	dir  string
	err  error
}

var faulty faultyBinary

func (b *faultyBinary) path() (string, error) {
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "stillpoint-faults-"); b.err != nil {
			return
		}
		build := exec.Command("go", "build", "-tags", "faults", "-o", filepath.Join(b.dir, "stillpoint"), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build: %w: %s", err, out)
		}
	})
	return filepath.Join(b.dir, "stillpoint"), b.err
}

// with are tests after which it is removed.
func (b *faultyBinary) with(m servertest.Tests) servertest.Tests { return unbuilding{m, b} }

type unbuilding struct {
	servertest.Tests
	b *faultyBinary
}

func (u unbuilding) Run() int {
	code := u.Tests.Run()
	if u.b.dir != "" {
		_ = os.RemoveAll(u.b.dir)
	}
	return code
}

// command is one call of the program with a deadline.
func (p *program) command(extra []string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	p.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, p.path, args...)
	c.Env = slices.Concat(p.env, extra)
	return c
}

// must runs the program, which must succeed, and returns what it printed.
func (p *program) must(args ...string) string {
	p.t.Helper()
	out, err := p.command(nil, args...).CombinedOutput()
	record(p.t, args, out)
	if err != nil {
		p.t.Fatalf("stillpoint %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// exits runs the program, which must end with this code.
func (p *program) exits(code int, args ...string) string {
	p.t.Helper()
	out, err := p.command(nil, args...).CombinedOutput()
	record(p.t, args, out)
	got := 0
	if x := (*exec.ExitError)(nil); errors.As(err, &x) {
		got = x.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	if got != code {
		p.t.Fatalf("stillpoint %s exits with %d, not %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// killed runs the program so that it kills itself at a fault point.
func (p *program) killed(point string, args ...string) {
	p.t.Helper()
	out, err := p.command([]string{"STILLPOINT_FAULT=kill:" + point}, args...).CombinedOutput()
	var x *exec.ExitError
	if !errors.As(err, &x) || x.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		p.t.Fatalf("%s was not reached by stillpoint %s: %v\n%s", point, strings.Join(args, " "), err, out)
	}
}

// write makes the file name below the volume hold text.
func (p *program) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.vol.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// left returns what of ours is on the volume and in the mount table.
func (p *program) left() string {
	p.t.Helper()
	var found []string
	for line := range strings.Lines(scratch.Run(p.t, "btrfs", "subvolume", "list", "-a", p.vol.Dir)) {
		if !strings.Contains(line, "mine") {
			found = append(found, line)
		}
	}
	if es, err := os.ReadDir(filepath.Join(p.vol.Dir, ".stillpoint")); err == nil {
		for _, e := range es {
			if e.Name() != "mine" {
				found = append(found, ".stillpoint/"+e.Name()+"\n")
			}
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, p.vol.Devices[0]) && !strings.Contains(line, p.vol.Dir) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// same fails unless two trees are equal for rsync, attributes and all but the
// times of directories: making our folder changes that of the top level.
func (p *program) same(a, b string) {
	p.t.Helper()
	out := scratch.Run(p.t, "rsync", "-naHAXi", "--checksum", "--delete", "--omit-dir-times", "--exclude", "/.stillpoint", a+"/", b+"/")
	if out != "" {
		p.t.Fatalf("%s and %s differ:\n%s", a, b, out)
	}
}

// TestKilledAnywhere kills the program at every fault point in turn. After the
// next start nothing of ours is left on the volume, what only looks like ours
// is untouched, the repository verifies, and earlier backups restore.
func TestKilledAnywhere(t *testing.T) {
	p := newProgram(t)
	v := p.vol.Dir
	for i := range 20 {
		p.write("a/file"+string(rune('a'+i)), strings.Repeat("first\n", 1000+i))
	}
	p.write("b/file", "b")
	if err := os.Link(filepath.Join(v, "a/filea"), filepath.Join(v, "b/link")); err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(p.dir, "first")
	scratch.Run(t, "rsync", "-aHAX", v+"/", first+"/")
	p.must("backup", v)
	firstID := strings.Fields(lines(p.must("backups"))[1])[0]

	// A user's own snapshots, where and how ours would be.
	mine := func() {
		scratch.Run(t, "btrfs", "subvolume", "create", filepath.Join(v, "mine"))
		scratch.Run(t, "mkdir", "-p", filepath.Join(v, ".stillpoint/mine"))
		scratch.Run(t, "btrfs", "subvolume", "snapshot", "-r", v, filepath.Join(v, ".stillpoint/mine/256"))
	}
	there := false

	for i, point := range fault.Points {
		t.Run(strings.ReplaceAll(point, ":", "/"), func(t *testing.T) {
			p := *p
			p.t = t
			if !there && point != "backup:planned" && point != "btrfs:folder-made" {
				mine()
				there = true
			}
			p.write("a/changed", strings.Repeat(point+"\n", 10+i))
			out := filepath.Join(t.TempDir(), "out")
			if strings.HasPrefix(point, "restore:") {
				p.must("backup", v+"/a", v+"/b")
				p.killed(point, "restore", "latest", "--to", out)
			} else {
				p.killed(point, "backup", v+"/a", v+"/b", "--checkpoint", "1ms")
			}
			if i%2 == 0 {
				// What looks like ours makes it exceptional, each time.
				if !there {
					p.must("clean")
				} else if out := p.exits(exitExceptions, "clean"); !strings.Contains(out, "mine") {
					t.Errorf("the look-alike is not named:\n%s", out)
				}
			} else {
				p.must("backup", v+"/a")
			}
			if left := p.left(); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
			if there {
				scratch.Run(t, "btrfs", "subvolume", "show", filepath.Join(v, "mine"))
				scratch.Run(t, "btrfs", "subvolume", "show", filepath.Join(v, ".stillpoint/mine/256"))
			}
			p.must("verify", "--read-data")
			if strings.HasPrefix(point, "restore:") {
				p.must("restore", "latest", "--to", out)
				p.same(filepath.Join(v, "a"), filepath.Join(out, v, "a"))
			}
			p.must("restore", firstID, "--to", filepath.Join(t.TempDir(), "first"))
		})
	}
	p.must("backup", v)
	out := filepath.Join(p.dir, "again")
	p.must("restore", firstID, "--to", out)
	p.same(first, filepath.Join(out, v))
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }

// TestInterrupted sends SIGINT, SIGTERM and SIGHUP while the snapshots exist.
func TestInterrupted(t *testing.T) {
	// Who runs the tests in the background, or by nohup, lets them ignore some, and a
	// program that is started so keeps to that (os/signal).
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(heard)
	p := newProgram(t)
	p.write("a/file", "content")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		for _, point := range []string{"backup:captured", "repository:file-stored", "backup:stored"} {
			t.Run(sig.String()+"/"+point, func(t *testing.T) {
				p.write("a/file", sig.String()+point)
				reached := filepath.Join(t.TempDir(), "reached")
				c := p.command([]string{"STILLPOINT_FAULT=wait:" + point, "STILLPOINT_FAULT_REACHED=" + reached}, "backup", p.vol.Dir+"/a")
				var out bytes.Buffer
				c.Stdout, c.Stderr = &out, &out
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(reached); err == nil {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("%s was not reached\n%s", point, out.String())
					}
				}
				if err := c.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // for the program to hear it
				if err := os.Remove(reached); err != nil {
					t.Fatal(err)
				}
				err := c.Wait()
				record(t, []string{"backup"}, out.Bytes())
				var x *exec.ExitError
				if !errors.As(err, &x) || x.ExitCode() != exitCancelled {
					t.Fatalf("ends with %v, not with code %d\n%s", err, exitCancelled, out.String())
				}
				if left := p.left(); left != "" {
					t.Errorf("left behind:\n%s", left)
				}
				if !strings.Contains(out.String(), "cancelled") {
					t.Errorf("the report does not say so:\n%s", out.String())
				}
			})
		}
	}
	if got := p.must("backups"); !strings.Contains(got, "no backups") {
		t.Errorf("a cancelled run made a backup:\n%s", got)
	}
}
