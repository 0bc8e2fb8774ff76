package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/scratch"
)

// play is what the test program does when a test starts it as a process of its
// own: one that can be killed, has other rights, or serves a file system.
func play(role string) int {
	from, to := os.Getenv("FROM"), os.Getenv("TO")
	var err error
	switch role {
	case "restore":
		c := &copier{overwrite: Always}
		err = c.tree(Source{Path: "/live", Root: from}, to)
		err = errors.Join(append(c.problems, err)...)
	case "hold":
		if _, err = OpenTarget(to); err == nil {
			fmt.Println("held")
			_, err = io.Copy(io.Discard, os.Stdin)
		}
	case "loopback", "fat":
		err = serve(from, to, role == "fat")
	case "unprivileged":
		return playUnprivileged(from, to)
	default:
		err = errors.New("no such role")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A player is a started role.
type player struct {
	*exec.Cmd
	stdin  io.WriteCloser
	stdout io.Reader
	errors *bytes.Buffer
	ended  chan struct{}
	err    error // once it has ended
}

// act starts this program in a role; it does not outlive the test.
func act(t *testing.T, role, from, to string) *player {
	t.Helper()
	p := &player{Cmd: exec.Command("/proc/self/exe"), errors: &bytes.Buffer{}, ended: make(chan struct{})}
	p.Env = append(os.Environ(), "STILLPOINT_TREE_TEST_ROLE="+role, "FROM="+from, "TO="+to)
	p.Stderr = p.errors
	var err error
	if p.stdin, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if p.stdout, err = p.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *player) kill() {
	_ = p.Process.Signal(syscall.SIGKILL)
	_ = p.wait(time.Minute)
}

func (p *player) wait(limit time.Duration) error {
	select {
	case <-p.ended:
		return p.err
	case <-time.After(limit):
		return errors.New("it does not end")
	}
}

// serve shows from at to until standard input ends. This file system has no
// files without names, as FUSE mostly and NFS always.
func serve(from, to string, likeFAT bool) error {
	root, err := fs.NewLoopbackRoot(from)
	if err != nil {
		return err
	}
	if data := root.(*fs.LoopbackNode).RootData; likeFAT {
		data.NewNode = func(root *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
			return &fatNode{fs.LoopbackNode{RootData: root}}
		}
		root = &fatNode{fs.LoopbackNode{RootData: data}}
		data.RootNode = root
	}
	server, err := fs.Mount(to, root, &fs.Options{MountOptions: fuse.MountOptions{AllowOther: true, DirectMountStrict: true}})
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return server.Unmount()
}

// A fatNode has no owner and no mode that could be set, and no extended
// attributes.
type fatNode struct{ fs.LoopbackNode }

func (n *fatNode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	in.Valid &^= fuse.FATTR_MODE
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

func (*fatNode) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.ENOTSUP
}

// loopback mounts a directory by FUSE.
func loopback(t *testing.T) string { return served(t, "loopback") }

func served(t *testing.T, role string) string {
	t.Helper()
	scratch.NeedRoot(t)
	from, to := t.TempDir(), t.TempDir()
	p := act(t, role, from, to)
	t.Cleanup(func() {
		_ = p.stdin.Close()
		_ = p.wait(10 * time.Second)
		if mounted(to) {
			t.Error("the loopback was not unmounted")
			_ = syscall.Unmount(to, syscall.MNT_DETACH)
		}
	})
	for end := time.Now().Add(10 * time.Second); !mounted(to); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no loopback: ", p.errors)
		}
	}
	return to
}

func temporaryNames(t *testing.T, root string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && temporaryRun(d.Name()) != "" {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
