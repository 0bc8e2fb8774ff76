package mount

import (
	"os"
	"path/filepath"
	"strconv"
)

// Namespace is the one that p is.
func (p *Private) Namespace() (ns *os.File, err error) {
	err = p.Do(func() error {
		ns, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	return ns, err
}

// Signal sends a signal to each process that lives in a mount namespace, but to this
// one, and returns how many it was sent to.
func Signal(ns *os.File, s os.Signal) (sent int, err error) {
	want, err := ns.Stat()
	if err != nil {
		return 0, err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !livesIn(pid, want) {
			continue
		}
		process, err := os.FindProcess(pid) // by a descriptor of it: nobody else can be hit
		if err != nil {
			continue
		}
		if livesIn(pid, want) && process.Signal(s) == nil {
			sent++
		}
		_ = process.Release()
	}
	return sent, nil
}

// livesIn tells whether a process lives in a namespace.
func livesIn(pid int, want os.FileInfo) bool {
	is, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	return err == nil && os.SameFile(is, want)
}
