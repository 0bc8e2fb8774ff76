package scratch

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// keepers names the processes that keep a device mounted, or a file of it open:
// a mount namespace of another program may have a copy of any mount.
func keepers(device string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(device, &st); err != nil {
		return err.Error()
	}
	b, err := os.ReadFile("/sys/block/" + filepath.Base(device) + "/dev")
	if err != nil {
		return err.Error()
	}
	number := " " + strings.TrimSpace(string(b)) + " "
	all, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, p := range all {
		var why []string
		if b, _ := os.ReadFile(p + "/mountinfo"); strings.Contains(string(b), number) {
			why = append(why, "mount")
		}
		fds, _ := filepath.Glob(p + "/fd/*")
		for _, fd := range fds {
			var of syscall.Stat_t
			if syscall.Stat(fd, &of) == nil && of.Dev == st.Rdev {
				to, _ := os.Readlink(fd)
				why = append(why, "descriptor "+filepath.Base(fd)+" of "+to)
			}
		}
		if len(why) > 0 {
			name, _ := os.ReadFile(p + "/comm")
			found = append(found, strings.TrimSpace(string(name))+" "+filepath.Base(p)+": "+strings.Join(why, ", "))
		}
	}
	return strings.Join(found, "; ")
}
