package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
)

func (p *program) planning(t *testing.T) {
	q, v := p.with(t), p.vol.Dir
	q.ends(problem.NotApplication, exitFailed, "backup", v, "--require", "application")

	file := filepath.Join(v, "busy")
	fill(t, file, 4096)
	stop := written(t, file, true)
	q.ends(problem.NoQuietTime, exitFailed, "backup", v, "--quiet", "1s", "--quiet-timeout", "2s")
	stop()
}

// A file system that says it is a server's.
func (p *program) network(t *testing.T) {
	remote := t.TempDir()
	root, err := fs.NewLoopbackRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, err := fs.Mount(remote, root, &fs.Options{MountOptions: fuse.MountOptions{FsName: "me@host:/srv", Name: "sshfs", DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	p.with(t).ends(problem.VolumeNetwork, exitFailed, "backup", remote)
}

func (p *program) btrfs(t *testing.T) {
	q, v := p.with(t), p.vol.Dir
	scratch.Run(t, "mount", "-o", "remount,ro", v)
	q.ends(problem.VolumeReadOnly, exitFailed, "backup", v)
	scratch.Run(t, "mount", "-o", "remount,rw", v)

	scratch.Run(t, "btrfs", "quota", "enable", v)
	scratch.Run(t, "btrfs", "quota", "rescan", "-w", v)
	scratch.Run(t, "btrfs", "qgroup", "limit", "1", "0/5", v)
	q.ends(problem.SnapshotFull, exitFailed, "backup", v)
	scratch.Run(t, "btrfs", "quota", "disable", v)

	swap := filepath.Join(v, "swap")
	scratch.Run(t, "btrfs", "filesystem", "mkswapfile", "--size", "8m", swap)
	scratch.Run(t, "swapon", swap)
	q.ends(problem.SwapActive, exitFailed, "backup", v)
	scratch.Run(t, "swapoff", swap)
	if err := os.Remove(swap); err != nil {
		t.Fatal(err)
	}

	sub := filepath.Join(v, "dir", "late")
	if err := os.Mkdir(filepath.Dir(sub), 0o755); err != nil {
		t.Fatal(err)
	}
	q.during("btrfs:places-made", func() { scratch.Run(t, "btrfs", "subvolume", "create", sub) }, problem.VolumeLate, exitExceptions, "backup", v)

	q.during("backup:recorded", func() { scratch.Run(t, "mount", "-o", "remount,ro", v) }, problem.ReleaseFailed, exitExceptions, "backup", v)
	scratch.Run(t, "mount", "-o", "remount,rw", v)
	q.must("clean")

	scratch.Run(t, "btrfs", "subvolume", "snapshot", "-r", v, filepath.Join(v, ".stillpoint-alike"))
	scratch.Run(t, "mkdir", "-p", filepath.Join(v, ".stillpoint/mine"))
	scratch.Run(t, "btrfs", "subvolume", "snapshot", "-r", v, filepath.Join(v, ".stillpoint/mine/256"))
	q.exits(exitExceptions, "clean")
	q.ends(problem.LeftoverForeign, exitComplete, "job", "show")
}

// twin is a block-wise copy of a file system, mounted beside it: a snapshot of it
// would not be known again.
func (p *program) twin(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB)
	scratch.Run(t, "sync", "-f", v.Dir)
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	scratch.Run(t, "dd", "if="+v.Devices[0], "of="+image, "bs=1M", "conv=sparse", "status=none")
	loop := strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image))
	defer func() { scratch.Run(t, "losetup", "--detach", loop) }()
	scratch.Run(t, "mount", "-t", "btrfs", loop, at)
	defer func() { scratch.Run(t, "umount", at) }()
	p.with(t).ends(problem.SnapshotFailed, exitFailed, "backup", at)
}

// A file that was open before the agent came, and is larger than what may be
// copied while nobody can write; it never holds still.
func (p *program) unshielded(t *testing.T) {
	v := scratch.New(t, "ext4", 400*scratch.MiB)
	file := filepath.Join(v.Dir, "file")
	fill(t, file, 100*scratch.MiB)
	stop := written(t, file, false)
	defer stop()
	p.with(t).ends(problem.UnshieldedFiles, exitFailed, "backup", v.Dir, "--cache-max", "1G")
}

// A write that is under way and does not end: the page that it writes is one of
// a file whose server does not answer.
func (p *program) frozen(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	slow := &dumb{asked: make(chan struct{}), answer: make(chan struct{})}
	dir := t.TempDir()
	server, err := fs.Mount(dir, slow, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("stuck", filepath.Join(dir, "page"), filepath.Join(v.Dir, "file"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		close(slow.answer)
		if err := c.Wait(); err != nil {
			t.Errorf("the write of the live system failed: %v", err)
		}
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
		thawed(t, v.Dir)
	}()
	select {
	case <-slow.asked:
	case <-time.After(time.Minute):
		t.Fatal("nobody asked for the page")
	}
	p.with(t).ends(problem.FreezeBlocked, exitFailed, "backup", v.Dir)
}

// thawed waits until a volume is not frozen, and stays so: the freeze that was
// given up comes about when the write has ended, and by then the program has, too.
func thawed(t *testing.T, dir string) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	since := time.Now()
	for end := time.Now().Add(30 * time.Second); time.Since(since) < time.Second; time.Sleep(20 * time.Millisecond) {
		frozen, err := freeze.Frozen(root)
		if err != nil {
			t.Fatal(err)
		}
		if frozen {
			since = time.Now()
		}
		if time.Now().After(end) {
			_ = freeze.Thaw(root)
			t.Fatal("the volume is left frozen")
		}
	}
}

// dumb is a file system of one file, whose contents are long in coming.
type dumb struct {
	fs.Inode
	once   sync.Once
	asked  chan struct{}
	answer chan struct{}
}

var (
	_ fs.NodeOnAdder   = (*dumb)(nil)
	_ fs.NodeOpener    = (*dumbFile)(nil)
	_ fs.NodeGetattrer = (*dumbFile)(nil)
	_ fs.NodeReader    = (*dumbFile)(nil)
)

type dumbFile struct {
	fs.Inode
	of *dumb
}

func (d *dumb) OnAdd(ctx context.Context) {
	d.AddChild("page", d.NewPersistentInode(ctx, &dumbFile{of: d}, fs.StableAttr{Mode: fuse.S_IFREG}), true)
}

func (f *dumbFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o444, 4096
	return 0
}

func (f *dumbFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *dumbFile) Read(_ context.Context, _ fs.FileHandle, b []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	f.of.once.Do(func() { close(f.of.asked) })
	<-f.of.answer
	return fuse.ReadResultData(make([]byte, min(len(b), 4096))), 0
}

// stuck writes a page of its first argument, mapped, to its second, as a process
// of its own: it waits inside of the kernel until the page comes.
func stuck() {
	page, err := os.Open(os.Args[1])
	if err == nil {
		var b []byte
		if b, err = syscall.Mmap(int(page.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED); err == nil {
			var to *os.File
			if to, err = os.Create(os.Args[2]); err == nil {
				_, err = to.Write(b)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
