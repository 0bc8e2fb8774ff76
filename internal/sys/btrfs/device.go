package btrfs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// DeviceNumber returns the number "MAJOR:MINOR" of the block device that a
// path leads to now. It does not open the device.
func DeviceNumber(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", failed("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", failed("stat", path, unix.ENOTBLK)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// DeviceNumbers returns the numbers "MAJOR:MINOR" of the devices of a mounted
// file system, by the UUID that Describe tells; none where sysfs does not say.
// Layout: fs/btrfs/sysfs.c.
func DeviceNumbers(fs UUID) []string {
	dir := "/sys/fs/btrfs/" + fs.String() + "/devices/"
	links, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var numbers []string
	for _, l := range links {
		if b, err := os.ReadFile(dir + l.Name() + "/dev"); err == nil {
			numbers = append(numbers, strings.TrimSpace(string(b)))
		}
	}
	return numbers
}
