package tree

import (
	"time"

	"stillpoint/internal/sys/file"
)

// granule is the unit in which the file system of dir keeps times of change.
// It is measured with a file that is never seen; only vfat, old formats of
// ext and some network file systems have one worth a look.
func (t *Target) granule(dir int, device uint64) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g, ok := t.granules[device]; ok {
		return g
	}
	g := t.measureGranule(dir)
	t.granules[device] = g
	return g
}

func (t *Target) measureGranule(dir int) time.Duration {
	fd, name, err := t.newFile(dir)
	if err != nil {
		return 1
	}
	odd := time.Unix(1_000_000_001, 123_456_789)
	err = file.SetModified(fd, odd)
	info, statErr := file.Stat(fd, "", file.Itself)
	_ = file.Close(fd)
	if name != "" {
		_ = file.Remove(dir, name)
	}
	if err != nil || statErr != nil {
		return 1
	}
	granules := []time.Duration{1, 100, time.Microsecond, 10 * time.Millisecond, time.Second, 2 * time.Second}
	for _, g := range granules {
		if odd.Truncate(g).Equal(info.Modified) {
			return g
		}
	}
	return 1
}

// rights are owner, group and mode.
type rights struct{ uid, gid, mode uint32 }

func rightsOf(i file.Info) rights { return rights{i.UID, i.GID, i.Mode} }

type rightsKey struct {
	device uint64
	want   rights
}

// takes returns what the file system of dir makes of the rights of e. FAT has
// none to set, and in a user namespace not every owner can be set: what an
// earlier run restored there has other rights than the backup. It is tried with
// a file that is never seen.
func (t *Target) takes(dir int, device uint64, e Entry) rights {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := rightsKey{device, rights{e.UID, e.GID, e.Mode & 0o7777}}
	if r, ok := t.rights[key]; ok {
		return r
	}
	r := t.tryRights(dir, key.want)
	t.rights[key] = r
	return r
}

func (t *Target) tryRights(dir int, want rights) rights {
	fd, name, err := t.newFile(dir)
	if err != nil {
		return want
	}
	s := setter{fd: fd, path: func() string { return t.path }}
	s.entry = Entry{Type: File, UID: want.uid, GID: want.gid, Mode: want.mode}
	s.owner()
	s.mode()
	info, err := file.Stat(fd, "", file.Itself)
	_ = file.Close(fd)
	if name != "" {
		_ = file.Remove(dir, name)
	}
	if err != nil {
		return want
	}
	return rightsOf(info)
}
