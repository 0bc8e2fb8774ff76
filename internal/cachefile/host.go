package cachefile

import (
	"path"
	"strings"

	"stillpoint/internal/volume"
)

// A host is the volumes of a host and what of them is in the set.
type host struct {
	set, all  []volume.Volume
	byID      map[volume.ID]*volume.Volume
	encrypted bool // a volume of the set is
}

func newHost(set, all []volume.Volume) *host {
	h := &host{set: set, all: all, byID: map[volume.ID]*volume.Volume{}}
	for i := range all {
		h.byID[all[i].ID] = &all[i]
	}
	for i := range set {
		h.encrypted = h.encrypted || h.encryptedBelow(&set[i])
	}
	return h
}

// same tells whether two volumes are frozen together and fill up together: one
// superblock, or subvolumes of one btrfs.
func same(a, b *volume.Volume) bool {
	return a.ID == b.ID || superblock(a) == superblock(b)
}

func superblock(v *volume.Volume) string {
	id := string(v.ID)
	if v.Subvolume != nil {
		id, _, _ = strings.Cut(id, "/") // UUID/SUBVOLUME-ID
	}
	return id
}

// setVolume returns the volume of the set that v is or lies together with.
func (h *host) setVolume(v *volume.Volume) volume.ID {
	for i := range h.set {
		if same(&h.set[i], v) {
			return h.set[i].ID
		}
	}
	return ""
}

func (h *host) inSet(v *volume.Volume) bool { return h.setVolume(v) != "" }

// below returns the volumes that v stands on: those that hold the files of its
// loop devices, and what these stand on in turn.
func (h *host) below(v *volume.Volume) []*volume.Volume {
	var found []*volume.Volume
	queue := []*volume.Volume{v}
	for len(queue) > 0 {
		v, queue = queue[0], queue[1:]
	files:
		for _, d := range v.Stack {
			if d.File == "" {
				continue
			}
			b := h.showing(d.File)
			if b == nil {
				continue
			}
			for _, f := range found {
				if f == b {
					continue files
				}
			}
			found = append(found, b)
			queue = append(queue, b)
		}
	}
	return found
}

// on lists v and what it stands on.
func (h *host) on(v *volume.Volume) []volume.ID {
	ids := []volume.ID{v.ID}
	for _, b := range h.below(v) {
		ids = append(ids, b.ID)
	}
	return ids
}

// showing returns the volume that shows a path: that of the deepest mount on
// the way which nothing hides. A loop device remembers the path that its file
// had in the namespace of whoever set it up, so this is a good guess only.
func (h *host) showing(name string) *volume.Volume {
	var best *volume.Volume
	longest := -1
	name = path.Clean(name)
	for i := range h.all {
		for _, m := range h.all[i].Mounts {
			if len(m.Point) > longest && !m.Hidden && within(m.Point, name) {
				best, longest = &h.all[i], len(m.Point)
			}
		}
	}
	return best
}

func within(dir, name string) bool {
	return dir == "/" || name == dir || strings.HasPrefix(name, dir+"/")
}

// encryptedBelow tells whether what is written to v goes through device-mapper's
// encryption, here or below its loop devices: on each of several devices that
// carry one file system.
func (h *host) encryptedBelow(v *volume.Volume) bool {
	if encrypted(v) {
		return true
	}
	for _, b := range h.below(v) {
		if encrypted(b) {
			return true
		}
	}
	return false
}

func encrypted(v *volume.Volume) bool {
	tops, crypts := 0, 0
	for _, d := range v.Stack {
		if d.Level == 0 {
			tops++
		}
		if d.Type == "crypt" {
			crypts++
		}
	}
	return crypts > 0 && (tops < 2 || crypts >= tops)
}
