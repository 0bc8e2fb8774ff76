package agent

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// Source is what a mounted snapshot shows as its device: it says whose it is.
func Source(socket string) string { return "stillpoint:" + socket }

// covered comes after the Source of a memory file system that is itself covered
// by a snapshot of "/", with the ID of that mount.
const covered = "#"

// sweep unmounts what an agent with this socket, which was killed, has left
// mounted in this namespace.
func (r *Resident) sweep(ctx context.Context) {
	t, err := r.o.Host(ctx)
	if err != nil {
		return // which sync says
	}
	for _, v := range t.Volumes() {
		rest, ours := strings.CutPrefix(v.Source, Source(r.o.Socket))
		if !ours || v.FSType != "tmpfs" {
			continue
		}
		on, err := strconv.ParseUint(strings.TrimPrefix(rest, covered), 10, 64)
		if rest != "" && err != nil {
			continue // of an agent with another socket
		}
		for _, m := range v.Mounts {
			err := unmount(m, on)
			r.o.Log.Info("snapshot of an earlier agent unmounted", "folder", m.Point, "error", err)
		}
	}
}

// unmount takes away a mount, and the one with the ID on, if that covers it.
func unmount(m volume.Mount, on uint64) error {
	ns, err := mount.Namespace(os.Getpid())
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := mount.Unmount(ns, m.Point, on); err != nil {
		return err
	}
	f, err := os.Open(m.Point)
	if err != nil {
		return err
	}
	number, err := mount.Number(f)
	id, ierr := mount.ID(f)
	if err := errors.Join(err, ierr, f.Close()); err != nil || number != m.ID {
		return err
	}
	return mount.Unmount(ns, m.Point, id)
}
