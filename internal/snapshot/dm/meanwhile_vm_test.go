//go:build vm

package dm

import (
	"bytes"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

// on is a volume on a logical volume of a group with room for it on a second disk.
func on(t *testing.T) (r *rig, vg, node string) {
	r = newRig(t, func(tb testing.TB, dir string, n int, size int64) []string {
		vg = group(tb, dir, 2, size+50)
		node = lv(tb, vg, "--size", "400m")
		return []string{node}
	}, "ext4")
	r.fill(1 << 20)
	return r, vg, node
}

// What LVM, udev and timers do on any server, while a snapshot is held, goes on as
// ever, and the snapshot stays good.
func TestMeanwhile(t *testing.T) {
	r, vg, node := on(t)
	was := describe(t, nil)
	s := r.take()
	for _, c := range [][]string{
		{"vgchange", "-q", "-ay", vg},
		{"lvchange", "-q", "-ay", node},
		{"pvscan", "-q", "--cache", "-aay"},
		{"vgscan", "-q", "--mknodes"},
		{"vgck", vg},
		{"lvs", "-a"},
		{"lvcreate", "-q", "--yes", "--wipesignatures", "n", "--name", "other", "--size", "8m", vg},
		{"lvremove", "-q", "--yes", vg + "/other"},
		{"udevadm", "trigger", "--settle", "--subsystem-match=block"},
		{"fstrim", "--quiet-unsupported", r.vs[0].Dir},
	} {
		run(t, c[0], c[1:]...)
		if err := s.Err(); err != nil {
			t.Fatalf("after %v: %v", c, err)
		}
	}
	r.must(os.WriteFile(r.path("small"), []byte("other"), 0o600))
	run(t, "sync")
	if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); string(b) != "small" {
		t.Errorf("it reads %q, %v; %v", b, err, s.Err())
	}
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// What is discarded is not passed down, for the blocks hold what the snapshot has: a file
// that is deleted reads as it was, whatever fstrim says.
func TestDiscard(t *testing.T) {
	r, _, _ := on(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	discards := func() bool {
		b, err := os.ReadFile("/sys/dev/block/" + number.String() + "/queue/discard_max_bytes")
		r.must(err)
		return strings.TrimSpace(string(b)) != "0"
	}
	if !discards() {
		t.Fatal("the volume discards nothing: this test proves nothing")
	}
	content := make([]byte, 64<<20)
	rand.New(rand.NewSource(1)).Read(content)
	r.must(os.WriteFile(r.path("deleted"), content, 0o600))
	s := r.take()
	if discards() {
		t.Error("the volume discards")
	}
	r.must(os.Remove(r.path("deleted")))
	run(t, "sync", "--file-system", r.vs[0].Dir)
	out, err := runQuietly("fstrim", "--verbose", r.vs[0].Dir)
	t.Logf("fstrim: %s", out)
	if err == nil {
		t.Error("fstrim says that it has trimmed")
	}
	run(t, "sync", "--file-system", r.vs[0].Dir)
	if b, err := os.ReadFile(filepath.Join(s.Root(), "deleted")); !bytes.Equal(b, content) {
		t.Errorf("it reads otherwise (%d bytes): %v; %v", len(b), err, s.Err())
	}
	r.must(s.Err())
	r.must(s.Release(t.Context()))
	if !discards() {
		t.Error("afterwards the volume does not discard")
	}
	run(t, "fstrim", r.vs[0].Dir)
}

// A volume that is moved to another disk, or removed, while a snapshot is held, is so,
// and the snapshot is lost.
func TestMovedAway(t *testing.T) {
	for name, away := range map[string]func(r *rig, vg, node string){
		"moved": func(r *rig, vg, node string) {
			disks := strings.Fields(run(t, "lvs", "--noheadings", "-o", "devices", node))
			disk, _, _ := strings.Cut(disks[0], "(")
			run(t, "pvmove", "-q", "--yes", "--interval", "1", disk)
			if b, err := os.ReadFile(r.path("small")); string(b) != "small" {
				t.Errorf("the volume reads %q, %v", b, err)
			}
		},
		"removed": func(r *rig, vg, node string) {
			r.await("the end of the mount", func() bool {
				_, err := runQuietly("umount", r.vs[0].Dir)
				return err == nil
			})
			run(t, "lvremove", "-q", "--yes", node)
			// For what the rig undoes.
			run(t, "mount", "-t", "tmpfs", "none", r.vs[0].Dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, vg, node := on(t)
			s := r.take()
			r.must(s.Err())
			away(r, vg, node)
			if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost {
				t.Errorf("it ended with %v", err)
			}
			r.must(s.Release(t.Context()))
			r.await("nothing of ours", func() bool { return !strings.Contains(describe(t, nil), namePrefix) })
		})
	}
}
