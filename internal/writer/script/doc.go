// Package script brings applications to rest by programs that the administrator
// has written: the executables of one directory, called with a word as the first
// argument. It knows the words, the order, the limits of time, and which files
// it may run; it does not know what they do.
//
// With "freeze" they are called in the order of their names, with "thaw" in the
// reverse order. So does the QEMU guest agent's fsfreeze-hook; VMware's tools
// have a third word, see Options. Whoever was called with "freeze" is called
// with "thaw", also if it failed or was killed for taking too long. A script
// runs as root, with a fixed environment, and what it prints is shown when it
// fails.
//
// A helper process (package aide) runs them. It is there before anything rests,
// and calls "thaw" when we are killed, and at the end of the window when we are
// stopped. When it is killed itself, we do it. When both are, nobody does.
//
// # What may hang
//
// A script is read from disk when it is called, and so is the program that
// reads it. With "thaw" that happens while a volume may still be frozen. It then
// waits until the volume is thawed, which the coordinator does at the same time
// and for which it waits for no writer; a directory on a volume that is not
// captured avoids it. The limits end what hangs; they do not thaw for it.
package script

import "time"

// Options are the settings. The zero value works.
type Options struct {
	// Dir is where the scripts are; /etc/stillpoint/freeze.d.
	Dir string

	// Limit is how long each call may take; 30 s. All together have the window.
	Limit time.Duration

	// FreezeFail calls with "freezeFail" instead of "thaw" when not all came to
	// rest, as VMware's tools do. Scripts written for the QEMU guest agent know
	// no such word.
	FreezeFail bool

	// Paths are live paths of the data that the scripts bring to rest. Without
	// any, nobody can say what they are for.
	Paths []string
}

func (o Options) orDefault() Options {
	if o.Dir == "" {
		o.Dir = "/etc/stillpoint/freeze.d"
	}
	if o.Limit == 0 {
		o.Limit = 30 * time.Second
	}
	return o
}

const (
	name    = "script"
	program = "stillpoint-script" // the helper process
)

// The words.
const (
	freeze     = "freeze"
	freezeFail = "freezeFail"
	thaw       = "thaw"
)
