package volume

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// espTypes are the types of an EFI system partition: in a GPT (UEFI
// specification 2.10, section 5.3.3) and in an MBR.
var espTypes = []string{"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef"}

// isEFI reports whether a FAT file system is the EFI system partition: by what
// udev recorded, else by the GPT, else by its place.
func (r *reader) isEFI(v *Volume) bool {
	if v.FSType != "vfat" && v.FSType != "msdos" {
		return false
	}
	if slices.ContainsFunc(v.Mounts, func(m Mount) bool { return m.Point == "/boot/efi" || m.Point == "/efi" }) {
		return true
	}
	if typ := r.udev(v.Device)["ID_PART_ENTRY_TYPE"]; typ != "" {
		return slices.Contains(espTypes, strings.ToLower(typ))
	}
	b, ok := r.devices.read(v.Device)
	if !ok || b.partition == 0 || len(b.below) == 0 {
		return false
	}
	disk, ok := r.devices.read(b.below[0])
	if !ok {
		return false
	}
	typ, err := ask(r, func() (string, error) {
		return r.roots.Probe.PartitionType(r.devices.node(disk.Name), disk.Number, b.partition)
	})
	if err != nil {
		r.warn("type of partition %s: %w", b.Name, err)
	}
	return slices.Contains(espTypes, typ)
}

// identify finds UUID and label of a local file system. The file system itself
// was asked already and knows best; then udev, whose record may be old; then
// the device.
func (r *reader) identify(v *Volume, facts Facts) {
	v.UUID, v.Label = facts.UUID, facts.Label
	if v.FSType == "btrfs" || v.FSType == "zfs" {
		return
	}
	u := r.udev(v.Device)
	if v.UUID == "" && !facts.Final {
		v.UUID = u["ID_FS_UUID"]
	}
	if v.Label == "" && strings.EqualFold(v.UUID, u["ID_FS_UUID"]) {
		v.Label = udevDecode(u["ID_FS_LABEL_ENC"])
	}
	if v.UUID == "" && !facts.Final && hasKnownSuperblock(v.FSType) {
		r.readSuperblock(v)
	}
	v.UUID = strings.ToLower(v.UUID)
}

func (r *reader) readSuperblock(v *Volume) {
	b, ok := r.devices.read(v.Device)
	if !ok {
		return
	}
	s, err := ask(r, func() (Facts, error) {
		uuid, label, err := r.roots.Probe.Superblock(r.devices.node(b.Name), b.Number)
		return Facts{UUID: uuid, Label: label}, err
	})
	if err != nil {
		r.warn("superblock of %s: %w", b.Name, err)
		return
	}
	v.UUID, v.Label = s.UUID, s.Label
}

func hasKnownSuperblock(fsType string) bool {
	return slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "vfat", "msdos"}, fsType)
}

// A pool is a btrfs file system as sysfs shows it.
type pool struct {
	fsid    string // as the kernel calls it now
	uuid    string // as it stays
	label   string
	twin    bool     // it has a temporary fsid, as another one with its uuid is mounted
	devices []string // numbers
}

// btrfs finds the file system that a btrfs mount belongs to: the one with this
// fsid, or, where the file system did not tell, the one that has the device.
// Directory layout: Documentation/ABI/testing/sysfs-fs-btrfs and
// fs/btrfs/sysfs.c.
func (r *reader) btrfs(fsid, source string) pool {
	number, _ := r.devices.number(source)
	for _, p := range r.allBtrfs() {
		if p.fsid == fsid || fsid == "" && slices.Contains(p.devices, number) {
			return p
		}
	}
	p := pool{fsid: fsid, uuid: fsid}
	if number != "" {
		p.devices = []string{number}
	}
	return p
}

// allBtrfs lists the mounted btrfs file systems.
func (r *reader) allBtrfs() []pool {
	if r.pools != nil {
		return r.pools
	}
	r.pools = []pool{}
	base := filepath.Join(r.roots.Sys, "fs/btrfs")
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		dir := filepath.Join(base, e.Name())
		links, err := os.ReadDir(filepath.Join(dir, "devices"))
		if err != nil { // "features"
			continue
		}
		p := pool{fsid: e.Name(), uuid: e.Name(), label: attribute(dir, "label")}
		// A copy of a mounted btrfs gets a random fsid for as long as it is
		// mounted (Linux 6.7, TEMP_FSID); the one on disk is still told.
		if stays := attribute(dir, "metadata_uuid"); attribute(dir, "temp_fsid") == "1" && stays != "" {
			p.uuid, p.twin = stays, true
		}
		for _, l := range links {
			if n := attribute(dir, filepath.Join("devices", l.Name(), "dev")); n != "" {
				p.devices = append(p.devices, n)
			}
		}
		r.pools = append(r.pools, p)
	}
	return r.pools
}

// udev returns what udev recorded of a device; nothing where it does not run.
func (r *reader) udev(number string) map[string]string {
	if props, ok := r.udevSeen[number]; ok {
		return props
	}
	props := map[string]string{}
	r.udevSeen[number] = props
	f, err := os.Open(filepath.Join(r.roots.Udev, "b"+number))
	if err != nil {
		return props
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if line, ok := strings.CutPrefix(s.Text(), "E:"); ok {
			if k, v, ok := strings.Cut(line, "="); ok {
				props[k] = v
			}
		}
	}
	return props
}

// udevDecode reads the escapes of udev's *_ENC properties, "\x20".
func udevDecode(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, `\x`)
		if i < 0 || len(s) < i+4 {
			return b.String() + s
		}
		b.WriteString(s[:i])
		if c, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
			b.WriteByte(byte(c))
		} else {
			b.WriteString(s[i : i+4])
		}
		s = s[i+4:]
	}
}
