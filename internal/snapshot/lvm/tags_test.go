package lvm

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"stillpoint/internal/sys/dm"
)

// ourVolume is a volume as Prepare makes it.
func ourVolume(t *testing.T) (logical, claim) {
	t.Helper()
	by, err := self()
	if err != nil {
		t.Fatal(err)
	}
	c := claim{set: "abc", of: "origin", by: by}
	c.proof = c.digest("group", "stillpoint-abc-0")
	return logical{GroupUUID: "group", Name: "stillpoint-abc-0", Type: "thin", Tags: strings.Join(c.tags(), ",")}, c
}

// What has our tags is ours as long as they are its own.
func TestClaim(t *testing.T) {
	lv, want := ourVolume(t)
	if got, ours := lv.read(); !ours || got != want {
		t.Errorf("read %+v, %v", got, ours)
	}
	for name, change := range map[string]func(*logical){
		"another group":  func(lv *logical) { lv.GroupUUID = "copy" },
		"another name":   func(lv *logical) { lv.Name = "stillpoint-abc-1" },
		"another set":    func(lv *logical) { lv.Tags = strings.Replace(lv.Tags, "=abc", "=abd", 1) },
		"another origin": func(lv *logical) { lv.Tags = strings.Replace(lv.Tags, "=origin", "=other", 1) },
		"no tag":         func(lv *logical) { lv.Tags = strings.TrimPrefix(lv.Tags, tagOurs+",") },
		"no tags":        func(lv *logical) { lv.Tags = "" },
		"another kind":   func(lv *logical) { lv.Type = "linear" },
	} {
		other := lv
		change(&other)
		if _, ours := other.read(); ours {
			t.Errorf("%s: it is still ours", name)
		}
	}
	for tag := range strings.SplitSeq(lv.Tags, ",") { // lvm(8), "VALID NAMES", and the length of a tag
		if strings.Trim(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-/=!:#&") != "" || len(tag) > 1024 {
			t.Errorf("LVM does not take the tag %q", tag)
		}
	}
}

// Room for originals is ours by a proof of its own: that of the one kind is none of the other.
func TestRoomClaim(t *testing.T) {
	lv, c := ourVolume(t)
	lv.Name, lv.Type = "stillpoint-abc-room-3", roomType
	c.proof = c.roomDigest(lv.GroupUUID, lv.Name)
	lv.Tags = strings.Join(c.tags(), ",")
	if got, ours := lv.read(); !ours || got != c {
		t.Errorf("read %+v, %v", got, ours)
	}
	if n, err := lv.index(); n != 3 || err != nil {
		t.Errorf("its index is %d, %v", n, err)
	}
	for name, change := range map[string]func(*logical){
		"another kind": func(lv *logical) { lv.Type = "thin" },
		"striped":      func(lv *logical) { lv.Type = "striped" },
		"another name": func(lv *logical) { lv.Name = "stillpoint-abc-room-4" },
		"no proof":     func(lv *logical) { lv.Tags = tagOurs },
	} {
		other := lv
		change(&other)
		if _, ours := other.read(); ours {
			t.Errorf("%s: it is still ours", name)
		}
	}
}

// A process lives until it has ended, and its number alone is none.
func TestLives(t *testing.T) {
	me, err := self()
	if err != nil || !me.lives(me) {
		t.Fatalf("we are dead: %v", err)
	}
	later, before := me, me
	later.start += "0"
	before.boot = "another"
	if later.lives(me) || before.lives(me) {
		t.Error("another one with our number lives")
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := me
	child.pid = strconv.Itoa(cmd.Process.Pid)
	if child.start, err = started(child.pid); err != nil || !child.lives(me) {
		t.Errorf("the child is dead: %v", err)
	}
	in.Close()
	// Ended, and not yet asked how.
	for child.lives(me) {
		if _, err := os.Stat("/proc/" + child.pid); err != nil {
			t.Fatal("it is gone, and lived until then")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestUUIDs(t *testing.T) {
	lv := logical{GroupUUID: "d8XCj2-SS3J-Ghyl-Ct3J-BTQG-Xx0F-4d1Ubs", UUID: "uj2kKQ-eCRh-geDb-nFhf-Quz6-XBbh-XADUrg"}
	if got, ok := lvUUID(dmUUID(lv)); !ok || got != lv.UUID {
		t.Errorf("got %q", got)
	}
	for _, no := range []string{"", "CRYPT-LUKS2-x", dmUUID(lv) + "-tpool", "LVM-short"} {
		if _, ok := lvUUID(no); ok {
			t.Errorf("%q is the UUID of a logical volume", no)
		}
	}
}

func TestThinTable(t *testing.T) {
	o, err := thinOf(dm.Target{Length: 2048, Type: "thin", Params: "253:2 17"})
	if err != nil || o.thin != 17 || o.pool.number != (dm.Number{Major: 253, Minor: 2}) || o.sectors != 2048 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, no := range []string{"253:2 17 253:9", "253:2", "x 1", "253:2 -1"} {
		if _, err := thinOf(dm.Target{Params: no}); err == nil {
			t.Errorf("%q is taken", no)
		}
	}
}
