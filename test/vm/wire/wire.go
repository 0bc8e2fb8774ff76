// Package wire is what a test on this machine and the program that serves it in
// a virtual machine say to each other: JSON, one value after the other, through
// a serial port. The first word is the guest's, when it is up; then each Request
// has one Reply, in any order. What a script prints comes before its Reply,
// in others that say so.
package wire

import "time"

// Port is the name of the serial port, which the guest finds in /dev/virtio-ports.
const Port = "stillpoint"

// An Op is what is asked for.
type Op string

// What can be asked for.
const (
	Run   Op = "run"   // the shell script Text, for no longer than Limit
	Read  Op = "read"  // the file Text
	Write Op = "write" // Data as the file Text, with the mode Mode
)

// A Request is something to do in the guest.
type Request struct {
	ID    int64
	Op    Op
	Text  string
	Data  []byte        `json:",omitempty"`
	Mode  uint32        `json:",omitempty"`
	Limit time.Duration `json:",omitempty"`
}

// A Reply says how that went. The guest's first word is one with the ID 0, and
// the kernel's release in Out.
type Reply struct {
	ID      int64
	Code    int    // the script's exit code, 128 and the number for a signal
	Out     []byte `json:",omitempty"`
	Err     []byte `json:",omitempty"`
	Failure string `json:",omitempty"` // why it could not be done, or ended
	More    bool   `json:",omitempty"` // is more to come: this is only what a script printed so far
}
