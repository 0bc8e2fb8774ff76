package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// Namespaces looks for mount namespaces of services and containers that keep a
// snapshot of ours mounted, or that have a copy of a volume's mount that no
// unmount on the host reaches. own tells which processes are ours.
func Namespaces(h Host, s Subject, own func(pid int) bool) Check {
	return Check{Name: "namespaces", Look: func(ctx context.Context) ([]Finding, error) {
		here, err := os.Readlink(filepath.Join(h.Proc, "thread-self/ns/mnt"))
		if err != nil {
			return nil, problem.New(problem.LookFailed, "", err)
		}
		var found []Finding
		processes, denied, others := 0, 0, 0
		seen := map[string]bool{here: true}
		if host, err := os.Readlink(filepath.Join(h.Proc, "1/ns/mnt")); err == nil {
			seen[host] = true // nobody's own, where we are in another one
		}
		err = eachProcess(ctx, h, func(pid int, dir string) {
			processes++
			ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
			if errors.Is(err, fs.ErrPermission) {
				denied++
			}
			if err != nil || seen[ns] || ofKernel(dir) {
				return // gone
			}
			mounts, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
			if err != nil {
				return // another process may have it
			}
			seen[ns] = true
			others++
			if !own(pid) {
				found = append(found, keeps(s, string(mounts), who(dir, pid))...)
			}
		})
		if err == nil {
			err = onlyRoot(denied, processes)
		}
		if len(found) == 0 && err == nil {
			found = append(found, fine("none of %d other mount namespaces would keep a volume or a snapshot in use%s", others, except(denied)))
		}
		return found, err
	}}
}

// ofKernel tells whether it is a thread of the kernel, which is in the namespace that the
// first process began in, and restarted by nobody.
func ofKernel(dir string) bool {
	_, err := os.Readlink(filepath.Join(dir, "exe"))
	return errors.Is(err, fs.ErrNotExist)
}

// keeps is about what a namespace keeps in use.
func keeps(s Subject, mountinfo, who string) (found []Finding) {
	var volumes []string
	snapshots := 0
	for line := range strings.Lines(mountinfo) {
		m, ok := parseMount(line)
		switch {
		case !ok:
		case m.fsType == "fuse.stillpoint" || slices.Contains(strings.Split(m.root, "/"), snapshot.Own):
			snapshots++
		case m.private && m.root == "/":
			for _, v := range s.Volumes {
				if m.shows(v) && !slices.Contains(volumes, m.point) {
					volumes = append(volumes, m.point)
				}
			}
		}
	}
	const advice = "restart it after the backup; a service: leave MountFlags=private out of its unit; by hand: unshare --propagation slave"
	if snapshots > 0 {
		found = append(found, warned(problem.SnapshotHeld, who, "has %d mounts of snapshots in a mount namespace of its own", snapshots).
			so("they stay in use until it ends, also when `stillpoint snapshot delete` has taken them away on the host", advice))
	}
	if len(volumes) > 0 {
		found = append(found, warned(problem.SnapshotHeld, who, "has a copy of %s in a mount namespace of its own, where no unmount on the host gets to", strings.Join(volumes, ", ")).
			so("a snapshot that is mounted when such a namespace is made stays in use in it, and so does a volume that is unmounted", advice))
	}
	return found
}

// A mounted is a line of mountinfo (proc_pid_mountinfo(5)), as far as it matters.
type mounted struct {
	device, root, point, fsType string
	private                     bool // neither gets mounts and unmounts from others nor gives them
}

func parseMount(line string) (m mounted, ok bool) {
	head, tail, ok := strings.Cut(line, " - ")
	f := strings.Fields(head)
	if !ok || len(f) < 6 {
		return m, false
	}
	m = mounted{device: f[2], root: f[3], point: f[4], private: true}
	m.fsType, _, _ = strings.Cut(tail, " ")
	for _, tag := range f[6:] {
		if strings.HasPrefix(tag, "shared:") || strings.HasPrefix(tag, "master:") {
			m.private = false
		}
	}
	return m, true
}

// shows tells whether it is a copy of a place where the host has the volume.
func (m mounted) shows(v volume.Volume) bool {
	return m.device == v.Device && slices.ContainsFunc(v.Mounts, func(at volume.Mount) bool { return at.Point == m.point })
}

// who names a process, with the unit of systemd that it belongs to.
func who(dir string, pid int) string {
	name := named(program(dir), pid)
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	for line := range strings.Lines(string(b)) {
		if unit := path.Base(strings.TrimSpace(line)); strings.HasSuffix(unit, ".service") || strings.HasSuffix(unit, ".scope") {
			return fmt.Sprintf("%s of %s", name, unit)
		}
	}
	return name
}
