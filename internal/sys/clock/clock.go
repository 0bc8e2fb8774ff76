// Package clock asks the kernel how its clock is. It changes nothing, and knows
// no word of the product.
package clock

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Synchronised tells whether a time service keeps the clock of this host right,
// as adjtimex(2) says it: the kernel gives up believing so when none has set it
// for some hours (STA_UNSYNC).
func Synchronised() (bool, error) {
	var t unix.Timex // no modes: only asks, which anybody may
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, &fs.PathError{Op: "adjtimex", Path: "clock", Err: err}
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, nil
}
