package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/mount"
)

// MountKept mounts a snapshot that the agent at a socket keeps on the folder
// dir, a resolved path. Under it are the live paths.
func MountKept(ctx context.Context, socket, id, dir string) error {
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() || dir == "/" {
		return problem.Newf(problem.Usage, dir, "is no folder that something can be mounted on")
	}
	c := NewControl(socket)
	pieces, err := c.Pieces(ctx, id)
	if err != nil {
		return err
	}
	if err := mountPieces(pieces, Source(socket), dir, func(ids []uint64) error { return c.Mounted(ctx, id, dir, ids) }); err != nil {
		if problem.CodeOf(err) == problem.Uncatalogued {
			err = problem.New(problem.SnapshotFailed, id, fmt.Errorf("mount on %s: %w", dir, err))
		}
		return err
	}
	return nil
}

// mountPieces calls about before anything can be seen, with what will show at dir:
// the memory file system that holds the pieces, and on it the piece "/", if there
// is one.
func mountPieces(pieces []capture.Piece, source, dir string, about func(mountIDs []uint64) error) error {
	var ms []*os.File
	defer func() {
		for _, m := range ms {
			m.Close() // unmounted, if not attached
		}
	}()
	var ids []uint64
	for _, p := range pieces {
		m, err := mount.Clone(p.Root, p.Rel)
		if err != nil {
			return err
		}
		ms = append(ms, m)
		if p.Path == "/" {
			id, err := mount.ID(m)
			if err != nil {
				return err
			}
			ids = append(ids, id)
			source += fmt.Sprint(covered, id)
		}
	}
	top, id, err := openTop(pieces, ms, source)
	if err != nil {
		return err
	}
	defer top.Close()
	ids = append(ids, id)
	ns, err := mount.Namespace(os.Getpid())
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := about(ids); err != nil {
		return err
	}
	if err := mount.AttachAt(top, dir); err != nil {
		return err
	}
	for i, p := range pieces {
		err := mount.AttachAt(ms[i], filepath.Join(dir, p.Path))
		if errors.Is(err, os.ErrNotExist) {
			err = problem.Newf(problem.SnapshotFailed, p.Path, "the snapshot has no such place")
		}
		if err != nil {
			return errors.Join(err, mount.Unmount(ns, dir, ids...))
		}
	}
	return nil
}

// openTop makes the memory file system with a place for each piece that lies in
// no other one.
func openTop(pieces []capture.Piece, ms []*os.File, source string) (top *os.File, id uint64, err error) {
	top, err = mount.Open("tmpfs", []mount.Option{{Key: "source", Value: source}, {Key: "size", Value: "1m"}, {Key: "mode", Value: "0755"}},
		mount.NoDevices|mount.NoSetUID|mount.NoExecute)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			top.Close()
		}
	}()
	for i, p := range pieces {
		within := false
		for _, above := range pieces[:i] {
			within = within || strings.HasPrefix(p.Path, above.Path+"/") || above.Path == "/"
		}
		if !within {
			if err := place(top, p.Path, ms[i]); err != nil {
				return nil, 0, err
			}
		}
	}
	if err := mount.MakeReadOnly(top); err != nil {
		return nil, 0, err
	}
	id, err = mount.ID(top)
	return top, id, err
}

// place makes what m is mounted on: a folder, or a file.
func place(top *os.File, path string, m *os.File) error {
	fi, err := m.Stat()
	if err != nil {
		return err
	}
	full := fmt.Sprintf("/proc/self/fd/%d%s", top.Fd(), path)
	if fi.IsDir() {
		return os.MkdirAll(full, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	return os.WriteFile(full, nil, 0o444)
}
