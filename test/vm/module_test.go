//go:build vm

package vm_test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os/exec"
	"strings"
)

// renamed is a module of the kernel, compressed by xz, under another name: the kernel
// takes it from the struct module that the file has, where it is a field of fixed
// length (linux/module.h). Its signature (linux/module_signature.h) would be wrong then;
// a kernel that does not insist on one takes a file without.
func renamed(packed []byte, from, to string) ([]byte, error) {
	c := exec.Command("xz", "--decompress", "--stdout")
	c.Stdin = bytes.NewReader(packed)
	b, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("~Module signature appended~\n"))
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	s := f.Section(".gnu.linkonce.this_module")
	if s == nil {
		return nil, fmt.Errorf("%s is no module", from)
	}
	at := bytes.Index(b[s.Offset:s.Offset+s.Size], append([]byte(from), 0))
	if at < 0 {
		return nil, fmt.Errorf("%s does not have its name", from)
	}
	length := max(len(from), len(to)) // zeros follow
	copy(b[int(s.Offset)+at:], to+strings.Repeat("\x00", length-len(to)))
	return b, nil
}
