package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// swaps reads /proc/swaps: a heading, then lines such as
//
//	/dev/dm-1                               partition	8388604		0		-2
//
// whose file names are escaped and padded with spaces (swap_show() in
// mm/swapfile.c). A kernel without swap has no such file.
func (r *reader) swaps() ([]Swap, error) {
	b, err := os.ReadFile(filepath.Join(r.roots.Proc, "swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var swaps []Swap
	for line := range strings.Lines(string(b)) {
		f := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' || c == '\n' })
		if len(f) == 0 || f[0] == "Filename" {
			continue
		}
		if len(f) != 5 {
			r.warn("line of swaps not understood: %q", line)
			continue
		}
		size, err1 := strconv.ParseUint(f[2], 10, 64)
		used, err2 := strconv.ParseUint(f[3], 10, 64)
		priority, err3 := strconv.Atoi(f[4])
		if errors.Join(err1, err2, err3) != nil {
			r.warn("line of swaps not understood: %q", line)
			continue
		}
		s := Swap{Path: unescape(f[0]), File: f[1] == "file", Size: size * 1024, Used: used * 1024, Priority: priority}
		if !s.File {
			if n, ok := r.devices.number(s.Path); ok {
				s.Stack = r.devices.stack(n)
			}
		}
		swaps = append(swaps, s)
	}
	return swaps, nil
}
