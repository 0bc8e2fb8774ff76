package volume

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A devices reads block devices from sysfs, each once.
type devices struct {
	sys, dev string // "/sys", "/dev"
	seen     map[string]block
}

// A block is a block device with what it stands on.
type block struct {
	Device
	partition int      // its number, 0 where it is none
	below     []string // numbers
}

// stack returns the devices with the given numbers and everything below them,
// nearest first, each once. Numbers that sysfs does not know are left out:
// anonymous ones.
func (d *devices) stack(top ...string) []Device {
	var all []Device
	done := map[string]bool{}
	for level := 0; len(top) > 0; level++ {
		var found []Device
		var next []string
		for _, number := range top {
			if done[number] {
				continue
			}
			done[number] = true
			b, ok := d.read(number)
			if !ok {
				continue
			}
			b.Level = level
			found = append(found, b.Device)
			next = append(next, b.below...)
		}
		slices.SortFunc(found, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
		all = append(all, found...)
		top = next
	}
	return all
}

// read returns one device.
func (d *devices) read(number string) (block, bool) {
	if b, ok := d.seen[number]; ok {
		return b, b.Name != ""
	}
	b := block{}
	if dir, ok := follow(filepath.Join(d.sys, "dev/block", number)); ok {
		b = readBlock(dir, number)
	}
	d.seen[number] = b
	return b, b.Name != ""
}

// readBlock reads a block device's directory in sysfs.
// Documentation/ABI/stable/sysfs-block; the prefixes of dm/uuid are those of
// the tools that make the devices (libdm, cryptsetup, multipath, kpartx).
func readBlock(dir, number string) block {
	b := block{Device: Device{Name: filepath.Base(dir), Number: number, Type: "disk"}}
	sectors, _ := strconv.ParseUint(attribute(dir, "size"), 10, 64)
	b.Size = sectors * 512 // always of 512 bytes, whatever the device's blocks are
	b.partition, _ = strconv.Atoi(attribute(dir, "partition"))
	b.DMName = attribute(dir, "dm/name")
	b.File = attribute(dir, "loop/backing_file")
	uuid := attribute(dir, "dm/uuid")
	switch {
	case b.partition > 0:
		b.Type = "part"
	case strings.HasPrefix(uuid, "LVM-"):
		b.Type = "lvm"
	case strings.HasPrefix(uuid, "CRYPT-"):
		b.Type = "crypt"
	case strings.HasPrefix(uuid, "mpath-"):
		b.Type = "mpath"
	case strings.HasPrefix(uuid, "part"): // "part1-mpath-…", by kpartx
		b.Type = "part"
	case b.DMName != "":
		b.Type = "dm"
	case exists(dir, "md"):
		b.Type = "md"
	case b.File != "" || strings.HasPrefix(b.Name, "loop"):
		b.Type = "loop"
	case strings.HasPrefix(b.Name, "zram") || isRAMDisk(b.Name):
		b.Type = "ram"
	case strings.HasPrefix(b.Name, "sr"):
		b.Type = "rom"
	}
	if b.partition > 0 {
		if disk := attribute(filepath.Dir(dir), "dev"); disk != "" {
			b.below = []string{disk}
		}
		return b
	}
	slaves, _ := os.ReadDir(filepath.Join(dir, "slaves"))
	for _, s := range slaves {
		if n := attribute(dir, filepath.Join("slaves", s.Name(), "dev")); n != "" {
			b.below = append(b.below, n)
		}
	}
	return b
}

// number returns the number of the device that a path such as
// "/dev/mapper/vg-root" leads to.
func (d *devices) number(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "/dev/")
	if !ok {
		return "", false
	}
	node := filepath.Join(d.dev, rest)
	if target, err := filepath.EvalSymlinks(node); err == nil {
		node = target
	}
	// Some nodes are a level deeper: "cciss!c0d0" is /dev/cciss/c0d0.
	name := filepath.Base(node)
	if dev, err := filepath.EvalSymlinks(d.dev); err == nil {
		if rel, err := filepath.Rel(dev, node); err == nil && !strings.HasPrefix(rel, "..") {
			name = strings.ReplaceAll(rel, "/", "!")
		}
	}
	n := attribute(d.sys, filepath.Join("class/block", name, "dev"))
	if n == "" { // without udev the nodes of device-mapper are no links
		n = d.numberOfDM(filepath.Base(path))
	}
	return n, n != ""
}

func (d *devices) numberOfDM(name string) string {
	all, _ := filepath.Glob(filepath.Join(d.sys, "class/block/dm-*"))
	for _, dir := range all {
		if attribute(dir, "dm/name") == name {
			return attribute(dir, "dev")
		}
	}
	return ""
}

// node is the path of a device's node.
func (d *devices) node(name string) string {
	return filepath.Join(d.dev, strings.ReplaceAll(name, "!", "/"))
}

// inRAM reports whether everything lies on RAM disks.
func inRAM(stack []Device) bool {
	bottom := 0
	for _, d := range stack {
		bottom = max(bottom, d.Level)
	}
	return len(stack) > 0 && !slices.ContainsFunc(stack, func(d Device) bool {
		return d.Level == bottom && d.Type != "ram"
	})
}

// isRAMDisk recognises the devices of brd, "ram0".
func isRAMDisk(name string) bool {
	n, ok := strings.CutPrefix(name, "ram")
	return ok && isDigits(n)
}

// follow returns the directory that a link of sysfs leads to.
func follow(link string) (string, bool) {
	target, err := os.Readlink(link)
	if err != nil {
		return "", false
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(link), target)
	}
	return target, true
}

// attribute is the content of a file of sysfs, without its last newline, and
// empty where there is none.
func attribute(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// StackOf returns a block device of this host and everything that it stands on, nearest
// first, each once.
func StackOf(number string) []Device {
	d := devices{sys: Host().Sys, dev: Host().Dev, seen: map[string]block{}}
	return d.stack(number)
}
