package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A measure is what one call of a program took.
type measure struct {
	Task    string        `json:"task"`
	Program string        `json:"program"`
	Run     int           `json:"run"`
	Wall    time.Duration `json:"wall_ns"`   // until the program ended
	Synced  time.Duration `json:"synced_ns"` // until all that it wrote was on the disk
	CPU     time.Duration `json:"cpu_ns"`    // user and system
	Memory  int64         `json:"memory"`    // highest resident set of the program or a child
	Stored  int64         `json:"stored"`    // bytes of the repository afterwards; 0 where it is only read
}

// bench makes the data, runs everything and prints the table.
func bench(ctx context.Context, o *options) (err error) {
	s, err := newStage(ctx, o)
	defer func() {
		if rerr := s.remove(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", rerr))
		}
	}()
	if err != nil {
		return err
	}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	ps, err := programs(ctx, o, bin)
	if err != nil {
		return err
	}
	var ms []measure
	for run := range o.runs {
		for i := range ps {
			p := ps[(i+run)%len(ps)] // who comes first is another one each time
			m, err := s.program(ctx, o, p, run)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			ms = append(ms, m...)
		}
	}
	if o.json != "" {
		if err := writeJSON(o.json, ms); err != nil {
			return err
		}
	}
	return s.report(ctx, os.Stdout, o, ps, ms)
}

// The tasks, in the order of the table.
const (
	firstFiles   = "first backup of the files"
	secondFiles  = "second backup, nothing changed"
	restoreFiles = "restore of the files"
	firstLarge   = "first backup of the large file"
	restoreLarge = "restore of the large file"
)

// program takes one program through all tasks.
func (s *stage) program(ctx context.Context, o *options, p *program, run int) (ms []measure, err error) {
	type work struct {
		source string
		backup []string
		back   string
	}
	var todo []work
	if o.files > 0 {
		todo = append(todo, work{s.files, []string{firstFiles, secondFiles}, restoreFiles})
	}
	if o.large > 0 {
		todo = append(todo, work{s.large, []string{firstLarge}, restoreLarge})
	}
	for _, w := range todo {
		m, err := s.round(ctx, o, p, w.source, w.backup, w.back)
		if err != nil {
			return nil, err
		}
		ms = append(ms, m...)
	}
	for i := range ms {
		ms[i].Program, ms[i].Run = p.name, run
	}
	return ms, nil
}

// round makes a repository, backs source up into it once for each of backups,
// restores it, and removes all of it.
func (s *stage) round(ctx context.Context, o *options, p *program, source string, backups []string, back string) (ms []measure, err error) {
	dir := filepath.Join(s.dir, "work")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, c := range p.init(p, dir) {
		if _, err := run(ctx, c, dir); err != nil {
			return nil, err
		}
	}
	for n, task := range backups {
		if err := ready(ctx, o, s.source.image, source); err != nil {
			return nil, err
		}
		m, err := run(ctx, p.backup(p, dir, source, n), dir)
		if err != nil {
			return nil, err
		}
		m.Task = task
		if m.Stored, err = size(repo(dir)); err != nil {
			return nil, err
		}
		m.say(p)
		ms = append(ms, m)
	}
	m, err := s.restored(ctx, o, p, dir, source, len(backups)-1)
	m.Task = back
	m.say(p)
	return append(ms, m), err
}

// restored restores to a new volume: on an old one it matters what was deleted
// before (ext4 goes round inodes that were in use in the last minute).
func (s *stage) restored(ctx context.Context, o *options, p *program, dir, source string, n int) (m measure, err error) {
	v, err := newVolume(ctx, dir, "target", s.room)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, v.remove()) }()
	if err := ready(ctx, o, repo(dir)); err != nil {
		return m, err
	}
	if m, err = run(ctx, p.restore(p, dir, source, v.point, n), dir); err != nil || !o.check {
		return m, err
	}
	if err := same(ctx, source, found(v.point, source)); err != nil {
		return m, fmt.Errorf("what it restored is not the same: %w", err)
	}
	return m, nil
}

func (m *measure) say(p *program) {
	say("%-10s  %-31s %8.2f s  (on disk %.2f s)  cpu %.2f s  memory %s  stored %s", p.name, m.Task,
		m.Wall.Seconds(), m.Synced.Seconds(), m.CPU.Seconds(), formatSize(m.Memory), formatSize(m.Stored))
}

// run runs one command, with nothing left to write from before.
func run(ctx context.Context, c command, home string) (measure, error) {
	syscall.Sync()
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LC_ALL=C.UTF-8"}, c.env...)
	cmd.Dir = c.dir
	if cmd.Dir == "" {
		cmd.Dir = home
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second // to release snapshots, then it is killed
	began := time.Now()
	out, err := cmd.CombinedOutput()
	m := measure{Wall: time.Since(began)}
	syscall.Sync()
	m.Synced = time.Since(began)
	if cause := context.Cause(ctx); cause != nil {
		return m, cause
	}
	if err != nil {
		return m, fmt.Errorf("%v: %w: %s", c.args, err, out[max(0, len(out)-2000):])
	}
	m.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.Memory = u.Maxrss << 10 // getrusage(2): in KiB, of the largest of the process and its children
	}
	return m, nil
}

// each calls do for all regular files below the paths.
func each(ctx context.Context, do func(path string, fi fs.FileInfo) error, paths ...string) error {
	for _, top := range paths {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			return errors.Join(ctx.Err(), do(path, fi))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ready makes it the same for all programs what the kernel has in memory.
func ready(ctx context.Context, o *options, paths ...string) error {
	if !o.cold {
		return warm(ctx, paths...)
	}
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}

// warm reads everything once.
func warm(ctx context.Context, paths ...string) error {
	buf := make([]byte, 1<<20)
	return each(ctx, func(path string, _ fs.FileInfo) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		return err
	}, paths...)
}

func size(dir string) (n int64, err error) {
	err = each(context.Background(), func(_ string, fi fs.FileInfo) error {
		n += fi.Size()
		return nil
	}, dir)
	return n, err
}

// found is where a program put source: at its path below the target, or right
// there.
func found(target, source string) string {
	if at := filepath.Join(target, source); exists(at) {
		return at
	}
	return target
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// same compares two trees by their content, modes and times.
func same(ctx context.Context, a, b string) error {
	bufs := [2][]byte{make([]byte, 256<<10), make([]byte, 256<<10)}
	count := 0
	err := each(ctx, func(path string, fi fs.FileInfo) error {
		count++
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		other := filepath.Join(b, rel)
		fo, err := os.Lstat(other)
		if err != nil {
			return err
		}
		if fo.Size() != fi.Size() || fo.Mode() != fi.Mode() || !fo.ModTime().Equal(fi.ModTime()) {
			return fmt.Errorf("%s: size, mode or time differ", rel)
		}
		return equal(path, other, bufs)
	}, a)
	if err != nil {
		return err
	}
	return each(ctx, func(path string, _ fs.FileInfo) error {
		if count--; count < 0 {
			return fmt.Errorf("%s: more files than there were", path)
		}
		return nil
	}, b)
}

func equal(a, b string, bufs [2][]byte) error {
	var fs [2]*os.File
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fs[i] = f
	}
	for {
		n, err := io.ReadFull(fs[0], bufs[0])
		m, _ := io.ReadFull(fs[1], bufs[1])
		if !slices.Equal(bufs[0][:n], bufs[1][:m]) {
			return fmt.Errorf("%s and %s differ", a, b)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
