package lvm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"stillpoint/internal/sys/dm"
)

// backups is where LVM keeps what it last wrote about each group of this host, unless
// its configuration says otherwise (backup/backup_dir in lvm.conf(5)).
const backups = "/etc/lvm/backup"

// anySuspect tells whether LVM may have a volume of ours: there is a thin pool of LVM that
// has a volume, or one with our name, or a group of which LVM has noted such a name, or
// nothing. It is some calls to the kernel that wait for nothing, and no command of LVM,
// which reads all disks.
func anySuspect(c *dm.Control) (bool, error) {
	all, err := c.List()
	if err != nil {
		return false, err
	}
	groups := map[string]bool{}
	for _, d := range all {
		if d, err = c.Status(d.Number); err != nil && !errors.Is(err, dm.ErrNone) { // or it has gone
			return false, err
		}
		group, name := namesOf(d)
		if isPool(d) || strings.HasPrefix(name, namePrefix) {
			return true, nil
		}
		if group != "" {
			groups[group] = true
		}
	}
	for g := range groups {
		if isNoted(backups, g) {
			return true, nil
		}
	}
	return false, nil
}

// namesOf are those of a logical volume and its group, as LVM makes one of them: a
// hyphen within a name is doubled (dm_build_dm_name in libdm).
func namesOf(d dm.Device) (group, name string) {
	if _, ok := lvUUID(d.UUID); !ok {
		return "", ""
	}
	const hyphen = "\x00"
	group, name, _ = strings.Cut(strings.ReplaceAll(d.Name, "--", hyphen), "-")
	return strings.ReplaceAll(group, hyphen, "-"), strings.ReplaceAll(name, hyphen, "-")
}

// noted has LVM note what it does to rooms, also where its configuration says that it
// notes nothing (backup/backup = 0): what it noted before would be believed.
var noted = []string{"--autobackup", "y"}

// isNoted tells whether LVM's note of a group has a volume with our name or tag, or there
// is none, or it could not be written. The command that was run last is in it, too, whose
// quotes are not bare.
func isNoted(dir, group string) bool {
	const toWrite = 2 // W_OK of access(2)
	if errors.Is(syscall.Access(dir, toWrite), syscall.EROFS) {
		return true
	}
	b, err := os.ReadFile(filepath.Join(dir, group))
	return err != nil || bytes.Contains(b, []byte(`"`+tagOurs+`"`)) || bytes.Contains(b, []byte("\t"+namePrefix))
}
