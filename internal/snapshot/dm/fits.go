package dm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"stillpoint/internal/sys/dm"
	"stillpoint/internal/sys/key"
)

// fits is nil for a table that may be live in two devices at once: what it does
// with a block depends on nothing but the block. While a snapshot is held, the
// table of the origin is that of our device below it.
func fits(table []dm.Target) error {
	if len(table) == 0 {
		return fmt.Errorf("it has no table")
	}
	for _, t := range table {
		switch t.Type {
		case "linear", "striped", "thin", "zero", "error":
		case "crypt":
			if err := keyIsThere(t.Params); err != nil {
				return err
			}
		case "multipath":
			return fmt.Errorf("it is a multipath device itself, with no volume of LVM on it: the daemon that brings failed paths back would not know our device")
		case "snapshot-origin", "snapshot", "snapshot-merge":
			return fmt.Errorf("it has a snapshot of LVM, or is one, which is removed or changed by LVM alone")
		default:
			return fmt.Errorf("its target %q has a state of its own and can be there once only", t.Type)
		}
	}
	return nil
}

// fitsQueue is nil for a device whose queue, a folder of /sys, may be that of an origin.
// Its target refuses direct access to memory (origin_dax_direct_access in
// drivers/md/dm-snap.c), and who has a file mapped so would be killed by that. It does
// not know zones either.
func fitsQueue(dir string) error {
	for name, why := range map[string]string{
		"dax":   "it is memory that files are mapped from directly (DAX), which goes past any snapshot",
		"zoned": "it has zones that are written in order",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel that knows none
		}
		if err != nil {
			return err
		}
		if is := strings.TrimSpace(string(b)); is != "0" && is != "none" {
			return errors.New(why)
		}
	}
	return nil
}

// keyIsThere is nil when the key of a crypt target can be given to another one: it
// is the second parameter, in hexadecimal, or ":SIZE:TYPE:DESCRIPTION" of one in a
// keyring (Documentation/admin-guide/device-mapper/dm-crypt.rst). The kernel hands
// out no key from a keyring, and cryptsetup leaves there none that could be found.
func keyIsThere(params string) error {
	f := strings.Fields(params)
	if len(f) < 2 {
		return fmt.Errorf("the table of a crypt target is not understood")
	}
	if !strings.HasPrefix(f[1], ":") {
		return nil
	}
	part := strings.SplitN(f[1], ":", 4)
	if len(part) == 4 && key.Reachable(part[2], part[3]) {
		return nil
	}
	return fmt.Errorf("its key is in a keyring of the kernel, which gives it to nobody, as LUKS2 is opened by default; opened with --disable-keyring it could be taken")
}

// isOurs tells whether a table is the one that we give an origin: all of it goes
// to our device, which is asked for the original of what changes.
func isOurs(table []dm.Target, real dm.Number) bool {
	return len(table) == 1 && table[0].Type == "snapshot-origin" && table[0].Params == real.String()
}

// ours is that table.
func ours(sectors uint64, real dm.Number) []dm.Target {
	return []dm.Target{{Length: sectors, Type: "snapshot-origin", Params: real.String()}}
}
