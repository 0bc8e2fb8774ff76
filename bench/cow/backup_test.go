//go:build bench

package cow_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"stillpoint/internal/job"
)

const (
	smallFiles = 20_000
	smallSize  = 16 << 10
	largeSize  = 500 << 20
)

// backups measures the rate of a first backup through a snapshot, which it has to
// make, and of one that reads the live files.
func backups(r *rig) {
	program := r.build()
	small := int(min(smallFiles, r.most()))
	r.tree("small", small, smallSize)
	r.must(os.Mkdir(r.path("large"), 0o755))
	r.file("large/file", largeSize)
	r.eachRound(func() {
		for _, tree := range []struct{ dir, name string }{
			{"small", strconv.Itoa(small) + " small files"},
			{"large", "one file of 500 MiB"},
		} {
			size := r.size(tree.dir)
			for _, memory := range []struct {
				name    string
				prepare func(dir string)
			}{{"cold", r.forget}, {"warm", r.read}} {
				rate := func(what string) measure {
					return measure{name: fmt.Sprintf("%s %s, %s", what, tree.name, memory.name), unit: "MiB/s", goal: goal{least: 0.9, ratio: true}}
				}
				backup := func(side int, provider string) func() {
					return func() {
						memory.prepare(r.path(tree.dir))
						whole, storing := r.backup(program, r.path(tree.dir), provider)
						r.note(rate("storing"), side, float64(size)/(1<<20)/storing.Seconds())
						r.note(rate("whole backup of"), side, float64(size)/(1<<20)/whole.Seconds())
					}
				}
				r.inTurn(backup(without, "none"), backup(with, "cow"))
			}
		}
	})
}

// build builds stillpoint as a release is built.
func (r *rig) build() string {
	r.Helper()
	path := filepath.Join(r.TempDir(), "stillpoint")
	c := exec.CommandContext(r.Context(), "go", "build", "-trimpath", "-o", path, "stillpoint/cmd/stillpoint")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		r.Fatalf("build: %v: %s", err, out)
	}
	return path
}

// backup backs a directory up into a new repository, and is how long that took,
// and the storing of it alone.
func (r *rig) backup(program, dir, provider string) (whole, storing time.Duration) {
	r.Helper()
	home, err := os.MkdirTemp("", "stillpoint-bench-")
	r.must(err)
	defer os.RemoveAll(home)
	run := func(args ...string) (time.Duration, []byte) {
		r.Helper()
		c := exec.CommandContext(r.Context(), program, args...)
		c.Env = append(os.Environ(), "HOME="+home, "STILLPOINT_REPO="+home+"/repo", "STILLPOINT_PASSWORD=a secret",
			"STILLPOINT_STATE="+home+"/state", "STILLPOINT_AGENT="+home+"/agent.sock")
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
		c.WaitDelay = 20 * time.Second
		var said bytes.Buffer
		c.Stderr = &said
		began := time.Now()
		out, err := c.Output()
		if err != nil {
			r.Fatalf("stillpoint %s: %v: %s%s", args[0], err, out, said.Bytes())
		}
		return time.Since(began), out
	}
	run("init")
	syscall.Sync()
	whole, out := run("backup", dir, "--provider", provider, "--json")
	var report job.Report
	r.must(json.Unmarshal(out, &report))
	return whole, time.Duration(report.Volumes[0].Took)
}

func (r *rig) regular(dir string, do func(path string, d fs.DirEntry) error) {
	r.Helper()
	r.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return do(path, d)
	}))
}

func (r *rig) size(name string) (n int64) {
	r.Helper()
	r.regular(r.path(name), func(_ string, d fs.DirEntry) error {
		fi, err := d.Info()
		if err == nil {
			n += fi.Size()
		}
		return err
	})
	return n
}

// forget lets the kernel forget all files, also the image that the volume lies in.
func (r *rig) forget(string) {
	r.Helper()
	syscall.Sync()
	r.must(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0))
}

// read brings everything below a directory into memory.
func (r *rig) read(dir string) {
	r.Helper()
	r.regular(dir, func(path string, _ fs.DirEntry) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}
