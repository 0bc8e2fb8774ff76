package dm

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/sys/dm"
)

// What is ours is known by its UUID, which only who makes a device can give it,
// and nobody can change. Names are for people.
const (
	uuidPrefix = "STILLPOINT-"
	namePrefix = "stillpoint-"
	scheme     = "1" // of what follows the prefix

	// private comes before it where a device is not, or not only, what the live volume
	// is: a scan of libblkid leaves such devices alone, for they are parts of LVM's
	// (sysfs_devno_is_dm_private in lib/sysfs.c of util-linux: "LVM-", and something
	// behind a later hyphen), and so do the scans of LVM itself. The one below the
	// origin has what the origin has, and who looks below that for what it must start,
	// as those who make an initramfs do, is not to find what looks like LVM's.
	private = "LVM-"
)

// The kinds of our devices.
const (
	kindReal     = "real"     // what the origin was, under it; one for all sets
	kindStore    = "store"    // where originals go
	kindRoom     = "room"     // the same, where that is no cache file
	kindSnapshot = "snapshot" // what is read
	kindLayer    = "layer"    // the snapshot once more, to be written
	kindSpare    = "spare"    // where it keeps what is written
)

// A tag is what the UUID of a device of ours says.
type tag struct {
	kind   string
	origin dm.Number
	set    string // of all but a real one
	index  int
	owner  owner
}

func (t tag) uuid() string {
	if t.kind == kindReal {
		return strings.Join([]string{uuidPrefix + scheme, t.kind, t.origin.String()}, "-")
	}
	return strings.Join([]string{private + uuidPrefix + scheme, t.kind, t.origin.String(), t.set, strconv.Itoa(t.index), t.owner.String()}, "-")
}

// name has the origin in it, for a capture has sets of the same id by several providers,
// each of which counts from 0.
func (t tag) name() string {
	if t.kind == kindReal {
		return fmt.Sprintf("%s%s-%d-%d", namePrefix, t.kind, t.origin.Major, t.origin.Minor)
	}
	return fmt.Sprintf("%s%s-%d-%d-%d-%s", namePrefix, t.set, t.origin.Major, t.origin.Minor, t.index, t.kind)
}

// as is the tag of another device of the same snapshot.
func (t tag) as(kind string) tag {
	t.kind = kind
	return t
}

// parseTag reads a UUID. It is ours only if it is, to the letter, one that we
// would give.
func parseTag(uuid string) (t tag, ok bool) {
	f := strings.Split(strings.TrimPrefix(strings.TrimPrefix(uuid, private), uuidPrefix), "-")
	if len(f) < 3 || f[0] != scheme {
		return t, false
	}
	var err error
	if t.origin, err = dm.ParseNumber(f[2]); err != nil {
		return t, false
	}
	switch t.kind = f[1]; {
	case t.kind == kindReal && len(f) == 3:
	case slices.Contains([]string{kindStore, kindRoom, kindSnapshot, kindLayer, kindSpare}, t.kind) && len(f) == 6:
		t.set = f[3]
		if t.index, err = strconv.Atoi(f[4]); err != nil {
			return t, false
		}
		if t.owner, err = parseOwner(f[5]); err != nil {
			return t, false
		}
	}
	return t, t.uuid() == uuid
}

// An owner is the process that made a device. When it has ended, what it made is
// left over, whoever has its number now.
type owner struct {
	pid       int
	start     uint64 // in ticks since the boot
	namespace uint64 // in which the pid counts
}

func (o owner) String() string { return fmt.Sprintf("%d.%d.%d", o.pid, o.start, o.namespace) }

func parseOwner(s string) (o owner, err error) {
	if n, err := fmt.Sscanf(s, "%d.%d.%d", &o.pid, &o.start, &o.namespace); n != 3 || err != nil || o.String() != s {
		return o, fmt.Errorf("%q is no process", s)
	}
	return o, nil
}

// self is this process.
func self() (o owner, err error) {
	o.pid = os.Getpid()
	if o.start, err = startOf(o.pid); err != nil {
		return o, err
	}
	o.namespace, err = namespaceOf("self")
	return o, err
}

// initNamespace is the number of the first PID namespace, from which all
// processes of the host can be seen (PROC_PID_INIT_INO, linux/proc_ns.h).
const initNamespace = 0xeffffffc

// alive tells whether the process lives, as far as can be told from here: one of
// a namespace that cannot be looked into does.
func (o owner) alive() bool {
	here, err := namespaceOf("self")
	if err != nil {
		return true
	}
	if here == o.namespace {
		start, err := startOf(o.pid)
		return err == nil && start == o.start
	}
	if here != initNamespace {
		return true
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, e := range all {
		if ns, err := namespaceOf(e.Name()); err == nil && ns == o.namespace {
			return true
		}
	}
	return false
}

// startOf is field 22 of /proc/PID/stat (proc_pid_stat(5)); one that has ended and
// was not waited for has none any more.
func startOf(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

func namespaceOf(pid string) (n uint64, err error) {
	link, err := os.Readlink("/proc/" + pid + "/ns/pid")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(link, "pid:[%d]", &n)
	return n, err
}
