// Package terminal tells what the kernel does with the keys of the terminal
// that this process belongs to.
package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Signals tells whether Ctrl-C and the like reach this process and all others
// of its group from the terminal, which they do where the group is in the
// foreground (tty_ioctl(4)).
func Signals() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // it has none
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
