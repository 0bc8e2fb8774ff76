package cow

import (
	"slices"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/sys/process"
)

// freezable refuses to begin a freeze that would wait for a worker of io_uring
// which itself waits for a pipe, perhaps for ever. Who began after the gate was
// shut waits there, and is not seen here.
func (t *target) freezable() error {
	stuck, err := process.StuckWorkers()
	for _, w := range stuck {
		if t.writes(w.PID) {
			return problem.Newf(problem.FreezeBlocked, string(t.Volume()),
				"%s (process %d) has io_uring waiting for a pipe, to write what comes to a file, and has files of the volume open", process.Name(w.PID), w.PID)
		}
	}
	return err
}

// writes tells whether a process can write to the volume: by a descriptor, or
// by files that it has registered with io_uring.
func (t *target) writes(pid int) bool {
	ours := func(u hot.Use) bool { return u.PID == pid && u.Writes }
	found := slices.ContainsFunc(t.hot, ours) || slices.ContainsFunc(t.written, ours)
	if !found {
		ds, ok := process.DescriptorsInTime(pid, t.device)
		return !ok || slices.ContainsFunc(ds, func(d process.Descriptor) bool {
			return d.Regular() && d.Flags&syscall.O_ACCMODE != syscall.O_RDONLY
		})
	}
	return found
}
