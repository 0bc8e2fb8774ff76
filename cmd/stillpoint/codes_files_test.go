package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

func (p *program) liveFiles(t *testing.T) {
	q := p.with(t)
	dir := filled(t, 100)
	file, live := filepath.Join(dir, "file"), []string{"backup", dir, "--provider", "none"}

	// Of somebody else, who gives nobody a right; and us without those of root.
	if err := os.Chown(file, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	q.ended(problem.FileUnreadable, exitExceptions, q.withoutRights(live...))

	// Shown by a mount, and deleted.
	gone := filepath.Join(t.TempDir(), "gone")
	if err := os.WriteFile(gone, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "mount", "--bind", gone, file)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	q.ends(problem.FileVanished, exitExceptions, live...)
	scratch.Run(t, "umount", file)

	// A file system that cannot read an attribute.
	remote := t.TempDir()
	server, err := fs.Mount(remote, &attributeless{}, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	q.ends(problem.AttributeUnread, exitExceptions, "backup", remote, "--provider", "none")
	if err := server.Unmount(); err != nil {
		t.Fatal(err)
	}

	// Written to all the time. On a busy machine it may hold still for once.
	big := filled(t, 64*scratch.MiB)
	stop := written(t, filepath.Join(big, "file"), false)
	defer stop()
	for end := time.Now().Add(time.Minute); ; {
		args := []string{"backup", big, "--provider", "none"}
		out, err := q.command(nil, args...).CombinedOutput()
		if slices.Contains(endedWith(args, out), problem.FileChanged) || time.Now().After(end) {
			q.judge(problem.FileChanged, exitExceptions, args, out, err)
			return
		}
	}
}

// attributeless is a file system of one file, an attribute of which gives an error.
type attributeless struct{ fs.Inode }

type attributelessFile struct{ fs.MemRegularFile }

var (
	_ fs.NodeOnAdder     = (*attributeless)(nil)
	_ fs.NodeListxattrer = (*attributelessFile)(nil)
	_ fs.NodeGetxattrer  = (*attributelessFile)(nil)
)

func (a *attributeless) OnAdd(ctx context.Context) {
	file := &attributelessFile{fs.MemRegularFile{Data: []byte("content"), Attr: fuse.Attr{Mode: 0o644}}}
	a.AddChild("file", a.NewPersistentInode(ctx, file, fs.StableAttr{Mode: fuse.S_IFREG}), true)
}

func (*attributelessFile) Listxattr(_ context.Context, to []byte) (uint32, syscall.Errno) {
	const names = "user.lost\x00"
	if len(to) < len(names) {
		return uint32(len(names)), syscall.ERANGE
	}
	return uint32(copy(to, names)), 0
}

func (*attributelessFile) Getxattr(context.Context, string, []byte) (uint32, syscall.Errno) {
	return 0, syscall.EIO
}

// written changes a file again and again, until it is stopped; and has the disk take it,
// where it is not to go on all the time.
func written(t *testing.T, path string, synced bool) (stop func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer f.Close()
		for i := int64(0); ; i++ {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if _, err := f.WriteAt([]byte{byte(i)}, i%4096); err != nil {
				ended <- err
				return
			}
			if synced && i%100 == 99 {
				if err := f.Sync(); err != nil {
					ended <- err
					return
				}
			}
		}
	}()
	return func() {
		close(end)
		if err := <-ended; err != nil {
			t.Errorf("a write of the live system fails: %v", err)
		}
	}
}

func (p *program) targets(t *testing.T) {
	q := p.with(t, "STILLPOINT_REPO="+filepath.Join(t.TempDir(), "repo"))
	q.must("init")
	dir := filled(t, 4*scratch.MiB)
	if err := os.Chown(filepath.Join(dir, "file"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	q.must("backup", dir, "--provider", "none")
	restore := func(to string) []string { return []string{"restore", "latest:" + dir, "--to", to} }

	full := mounted(t, "tmpfs", "size=1m")
	q.ends(problem.TargetFull, exitFailed, restore(full)...)
	readOnly := mounted(t, "tmpfs", "ro")
	q.ends(problem.TargetLost, exitFailed, restore(readOnly)...)
	// A file system on which no file can be written to.
	q.ends(problem.TargetRefused, exitExceptions, restore(mounted(t, "hugetlbfs", "mode=755"))...)
	q.ended(problem.AttributeUnset, exitExceptions, q.withoutRights(restore(filepath.Join(t.TempDir(), "out"))...))
}

func (p *program) caches(t *testing.T) {
	q := p.with(t)
	v, other := scratch.New(t, "ext4", 200*scratch.MiB), scratch.New(t, "xfs", 320*scratch.MiB)
	q.ends(problem.CacheNowhere, exitFailed, "backup", v.Dir, "--cache-dir", mounted(t, "tmpfs", "size=1g"))

	file := filepath.Join(v.Dir, "file")
	fill(t, file, 60*scratch.MiB)
	q.during("backup:captured", func() { fill(t, file, 60*scratch.MiB) }, problem.CacheFull, exitFailed,
		"backup", v.Dir, "--cache-dir", other.Dir, "--cache-max", "50M")
	q.during("backup:captured", func() {
		scratch.Run(t, "xfs_io", "-x", "-c", "shutdown", other.Dir)
		fill(t, file, 60*scratch.MiB)
	}, problem.CacheLost, exitFailed, "backup", v.Dir, "--cache-dir", other.Dir)
}

// A file that is changed through an overlay after the instant.
func (p *program) torn(t *testing.T) {
	v := scratch.New(t, "ext4", 200*scratch.MiB)
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(v.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, filepath.Join(v.Dir, "upper", "file"), 4096)
	merged := filepath.Join(v.Dir, "merged")
	p.with(t).during("backup:captured", func() {
		scratch.Run(t, "mount", "-t", "overlay", "-o", "lowerdir="+filepath.Join(v.Dir, "lower")+",upperdir="+filepath.Join(v.Dir, "upper")+",workdir="+filepath.Join(v.Dir, "work"), "none", merged)
		defer func() { scratch.Run(t, "umount", merged) }()
		// Of this the kernel tells nobody who watches what lies below.
		if err := os.Truncate(filepath.Join(merged, "file"), 100); err != nil {
			t.Error(err)
		}
	}, problem.FileTorn, exitExceptions, "backup", v.Dir)
}

// Files that were deleted, for whose contents there is no room any more.
func (p *program) gone(t *testing.T) {
	v := scratch.New(t, "ext4", 96*scratch.MiB)
	name := func(kind string, n int) string { return filepath.Join(v.Dir, kind+string(rune('a'+n))) }
	const size, files = 8 * scratch.MiB, 7
	for n := range files {
		fill(t, name("file", n), size)
	}
	p.with(t).during("backup:captured", func() {
		for n := range files {
			if err := os.Remove(name("file", n)); err != nil {
				t.Fatal(err)
			}
			// Room is made in time, or the write of a server would fail.
			fill(t, name("later", n), size)
			time.Sleep(50 * time.Millisecond) // no server writes all it has room for without a pause
		}
	}, problem.FileGone, exitExceptions, "backup", v.Dir)
}

// A directory that is mounted elsewhere, and deleted from its volume.
func (p *program) lostVolume(t *testing.T) {
	dir, at := filepath.Join(t.TempDir(), "dir"), t.TempDir()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "mount", "--bind", dir, at)
	defer func() { scratch.Run(t, "umount", at) }()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	p.with(t).ends(problem.VolumeLost, exitFailed, "backup", at, "--provider", "none")
}
