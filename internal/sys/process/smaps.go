package process

import (
	"bufio"
	"bytes"
	"os"
)

// Flags are what the kernel may let a process do with its shared mappings.
type Flags struct {
	fixed map[[2]uint64]bool // those that can never be written to, by where they begin and end
}

// FlagsOfMappings reads smaps, a file of a process in /proc. It waits for the
// memory of the process, and goes through all of it, so it is not to be asked
// during a freeze. goOn is called between two steps.
func FlagsOfMappings(smaps string, goOn func()) *Flags {
	f := &Flags{fixed: map[[2]uint64]bool{}}
	file, err := os.Open(smaps)
	if err != nil {
		return f // nothing is known of any
	}
	defer file.Close()
	var span [2]uint64
	shared := false
	for lines := bufio.NewScanner(file); lines.Scan(); goOn() {
		line := lines.Bytes()
		if flags, ok := bytes.CutPrefix(line, []byte("VmFlags:")); ok {
			if shared && !bytes.Contains(append(flags, ' '), []byte(" mw ")) {
				f.fixed[span] = true
			}
		} else if m, ok := parseMapping(line); ok {
			span, shared = [2]uint64{m.Start, m.End}, m.Shared
		}
	}
	return f
}

// MayBecomeWritable tells whether a shared mapping can be written to now or, by
// mprotect, later: whether it was made by a descriptor for writing ("mw" among
// the VmFlags of smaps). When it is not known, it may.
func (f *Flags) MayBecomeWritable(start, end uint64) bool { return !f.fixed[[2]uint64{start, end}] }
