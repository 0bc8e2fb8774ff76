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
	if err := mountPieces(pieces, Source(socket), dir, func(mountID uint64) error { return c.Mounted(ctx, id, dir, mountID) }); err != nil {
		if problem.CodeOf(err) == problem.Uncatalogued {
			err = problem.New(problem.SnapshotFailed, id, fmt.Errorf("mount on %s: %w", dir, err))
		}
		return err
	}
	return nil
}

// mountPieces calls about before anything can be seen.
func mountPieces(pieces []capture.Piece, source, dir string, about func(mountID uint64) error) error {
	top, err := mount.Open("tmpfs", []mount.Option{{Key: "source", Value: source}, {Key: "size", Value: "1m"}, {Key: "mode", Value: "0755"}},
		mount.NoDevices|mount.NoSetUID|mount.NoExecute)
	if err != nil {
		return err
	}
	defer top.Close()
	var ms []*os.File
	defer func() {
		for _, m := range ms {
			m.Close() // unmounted, if not attached
		}
	}()
	for i, p := range pieces {
		m, err := mount.Clone(p.Root, p.Rel)
		if err != nil {
			return err
		}
		ms = append(ms, m)
		within := false
		for _, above := range pieces[:i] {
			within = within || strings.HasPrefix(p.Path, above.Path+"/") || above.Path == "/"
		}
		if !within {
			if err := place(top, p.Path, m); err != nil {
				return err
			}
		}
	}
	if err := mount.MakeReadOnly(top); err != nil {
		return err
	}
	id, err := mount.ID(top)
	if err != nil {
		return err
	}
	if err := about(id); err != nil {
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
			return errors.Join(err, unmount(dir))
		}
	}
	return nil
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
