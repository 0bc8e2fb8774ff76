package opened

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Lease is what fcntl(2), F_SETLEASE, or a server in the kernel has on a file:
// who opens the file otherwise waits until it is given back, or until
// /proc/sys/fs/lease-break-time is over.
type Lease struct {
	PID           int    // 0 if it is not of a process that is seen from here
	Device, Inode uint64 // the device of the file's superblock; what stat(2) says, but for btrfs and overlays
	Write         bool   // who opens the file for reading waits, too
}

// Leases lists all. It stops for a moment whoever locks a file (locks_start() in
// fs/locks.c), so it is not to be asked often.
func Leases() ([]Lease, error) {
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil, err
	}
	return parseLeases(b), nil
}

// parseLeases parses lines such as "5: LEASE  ACTIVE    WRITE 1234 fe:00:56 0 EOF"
// (lock_get_status).
func parseLeases(b []byte) (all []Lease) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 6 || string(f[1]) != "LEASE" && string(f[1]) != "DELEG" {
			continue
		}
		place := bytes.Split(f[5], []byte(":"))
		if len(place) != 3 {
			continue
		}
		major, err1 := strconv.ParseUint(string(place[0]), 16, 32)
		minor, err2 := strconv.ParseUint(string(place[1]), 16, 32)
		ino, err3 := strconv.ParseUint(string(place[2]), 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		pid, _ := strconv.Atoi(string(f[4]))
		all = append(all, Lease{PID: max(pid, 0), Device: unix.Mkdev(uint32(major), uint32(minor)), Inode: ino, Write: string(f[3]) != "READ"})
	}
	return all
}
