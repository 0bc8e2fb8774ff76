package lvm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// The tags of what is ours. LVM allows letters, digits and "_+.-/=!:#&" in them.
const (
	tagOurs  = "stillpoint"
	tagSet   = "stillpoint.set="
	tagOf    = "stillpoint.of="    // UUID of the origin
	tagBy    = "stillpoint.by="    // machine, boot, process and when it began
	tagProof = "stillpoint.proof=" // that the tags belong to the volume
)

const namePrefix = "stillpoint-"

// roomType is the type of segments that rooms for originals have.
const roomType = "linear"

// An owner is the process that made a snapshot.
type owner struct{ machine, boot, pid, start string }

func self() (o owner, err error) {
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	if o.machine = trim(machine); o.machine == "" {
		o.machine = "none"
	}
	if o.boot, err = boot(); err != nil {
		return o, err
	}
	o.pid = strconv.Itoa(os.Getpid())
	o.start, err = started(o.pid)
	return o, err
}

func (o owner) String() string { return strings.Join([]string{o.machine, o.boot, o.pid, o.start}, "/") }

// lives tells whether the process of o, of this machine, is there.
func (o owner) lives(here owner) bool {
	if o.boot != here.boot {
		return false
	}
	start, err := started(o.pid)
	return err == nil && start == o.start
}

// started is when a process began, in ticks since boot (proc_pid_stat(5), field
// 22), which tells it from a later one with its number. One that has ended and only
// waits to be asked how has not started.
func started(pid string) (string, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", err
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:]) // a name may have anything in it
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", fmt.Errorf("process %s has ended", pid)
	}
	return fields[19], nil
}

// A claim is what tags say of a volume.
type claim struct {
	set, of string
	by      owner
	proof   string
}

// tags are what a volume of the claim is made with.
func (c claim) tags() []string {
	return []string{tagOurs, tagSet + c.set, tagOf + c.of, tagBy + c.by.String(), tagProof + c.proof}
}

// digest binds a claim to the volume of a name in a volume group.
func (c claim) digest(groupUUID, name string) string {
	return c.sum("stillpoint lvm 1", groupUUID, name)
}

// roomDigest does so for one that is room for the originals of a classic volume.
func (c claim) roomDigest(groupUUID, name string) string {
	return c.sum("stillpoint lvm room 1", groupUUID, name)
}

func (c claim) sum(scheme, groupUUID, name string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{scheme, groupUUID, name, c.set, c.of, c.by.String()}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// read tells what the tags of a volume say, and whether they are its own.
func (lv logical) read() (c claim, ours bool) {
	for tag := range strings.SplitSeq(lv.Tags, ",") {
		key, value, _ := strings.Cut(tag, "=")
		switch key + "=" {
		case tagSet:
			c.set = value
		case tagOf:
			c.of = value
		case tagBy:
			if p := strings.Split(value, "/"); len(p) == 4 {
				c.by = owner{p[0], p[1], p[2], p[3]}
			}
		case tagProof:
			c.proof = value
		}
	}
	proof := ""
	switch lv.Type {
	case "thin":
		proof = c.digest(lv.GroupUUID, lv.Name)
	case roomType:
		proof = c.roomDigest(lv.GroupUUID, lv.Name)
	}
	return c, lv.tagged() && proof != "" && c.proof == proof
}

func (lv logical) tagged() bool {
	for tag := range strings.SplitSeq(lv.Tags, ",") {
		if tag == tagOurs {
			return true
		}
	}
	return false
}

func trim(b []byte) string { return strings.TrimSpace(string(b)) }
