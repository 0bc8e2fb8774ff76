//go:build vm

package dm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/snapshottest"
)

// crashed makes a file system as a power cut leaves it, with a file that was synced
// and whose name is in the journal only, and mounts it as it was found. The journal
// may lie on a device of its own.
func crashed(t *testing.T, fs, options string, format ...string) (r *rig, sum func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "stillpoint-dm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var nodes, files []string
	for _, sub := range []string{"before", "after"} {
		sub = filepath.Join(dir, sub)
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, plain(t, sub, 1, 400)...)
		found, err := filepath.Glob(sub + "/*")
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		files = append(files, found...)
	}
	r = &rig{T: t, p: New(host)}
	run(t, "mkfs."+fs, append(format, nodes[0])...)
	run(t, "mount", nodes[0], "/mnt")
	file := "/mnt/synced"
	f, err := os.Create(file)
	r.must(err)
	_, err = f.WriteString("synced")
	r.must(err)
	r.must(f.Sync())
	r.must(f.Close())
	// Not from the device: who reads that lets the kernel write what the journal has.
	run(t, "dd", "if="+files[0], "of="+nodes[1], "bs=1M", "oflag=direct", "status=none")
	run(t, "umount", "/mnt")
	at := filepath.Join(dir, "mount")
	r.must(os.Mkdir(at, 0o755))
	run(t, "mount", "-o", options, nodes[1], at)
	undo(t, "umount", at)
	found, _ := scratch.Find(t, at)
	r.vs = []snapshottest.Volume{{Dir: at, Volume: found}}
	return r, func() string { return strings.Fields(run(t, "sha256sum", nodes[1]))[0] }
}

// A journal that was not replayed is replayed in a layer, which is thrown away.
func TestUnreplayed(t *testing.T) {
	for fs, options := range map[string]string{"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"} {
		t.Run(fs, func(t *testing.T) {
			r, sum := crashed(t, fs, options, "-q")
			if _, err := os.ReadFile(r.path("synced")); err == nil {
				t.Fatal("it is there without the journal: this test proves nothing")
			}
			was, before := describe(t, nil), sum()
			s := r.take()
			if b, err := os.ReadFile(filepath.Join(s.Root(), "synced")); string(b) != "synced" {
				t.Errorf("it reads %q, %v; %v", b, err, s.Err())
			}
			r.must(s.Err())
			if s.Parts()[0].Frozen {
				t.Error("it is said to be what writers had written")
			}
			f, err := os.Open(filepath.Join(s.Root(), "synced"))
			r.must(err)
			r.must(s.Release(t.Context())) // also while it is read
			r.must(f.Close())
			r.await("the end of what was read", func() bool { return describe(t, nil) == was })
			if sum() != before {
				t.Error("the volume was written")
			}
		})
	}
}

// What a process has left of such a snapshot is found, and taken away.
func TestUnreplayedLeft(t *testing.T) {
	r, _ := crashed(t, "ext4", "ro,noload", "-q")
	was := describe(t, nil)
	s := r.take().(*target)
	_ = s.Root()
	r.must(s.Err())
	s.stopWatch(t.Context())
	l := &leftover{control: control(t), tag: s.tag.as(kindSnapshot)}
	for range 2 {
		r.must(l.Release(t.Context()))
	}
	if _, err := os.ReadFile(filepath.Join(s.shown.Root(), "synced")); err == nil {
		t.Log("it is read from memory")
	}
	r.must(s.shown.Close())
	s.store.file.Close()
	s.spare.file.Close()
	r.await("nothing that is left", func() bool { return describe(t, nil) == was })
}

// A volume that is mounted read-only, and clean, is taken like any other one.
func TestReadOnly(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		r := newRig(t, plain, fs)
		r.fill(1 << 20)
		run(t, "mount", "-o", "remount,ro", r.vs[0].Dir)
		r.vs[0].Volume, _ = scratch.Find(t, r.vs[0].Dir)
		was := describe(t, nil)
		s := r.take()
		run(t, "mount", "-o", "remount,rw", r.vs[0].Dir)
		r.must(os.WriteFile(r.path("small"), []byte("other"), 0o600))
		run(t, "sync")
		if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); string(b) != "small" {
			t.Errorf("%s: it reads %q, %v; %v", fs, b, err, s.Err())
		}
		if !s.Parts()[0].Frozen {
			t.Errorf("%s: its writes were not suspended", fs)
		}
		r.must(s.Release(t.Context()))
		if is := describe(t, nil); is != was {
			t.Errorf("%s: device-mapper is\n%s\nand was\n%s", fs, is, was)
		}
	}
}

// An ext4 with its journal on another device is taken; and refused where that journal
// would have to be replayed, which is not touched.
func TestExternalJournal(t *testing.T) {
	dir := t.TempDir()
	journal := disk(t, dir, name("journal"), 16)
	run(t, "mke2fs", "-q", "-O", "journal_dev", "-b", "4096", journal)
	r, _ := crashed(t, "ext4", "ro,noload", "-q", "-b", "4096", "-J", "device="+journal)
	was := describe(t, nil)
	before := run(t, "sha256sum", journal)
	s := r.take()
	_ = s.Root()
	if err := s.Err(); problem.CodeOf(err) != problem.SnapshotFailed || !strings.Contains(err.Error(), "mount it once without noload") {
		t.Errorf("not replayed: %v", err)
	}
	r.must(s.Release(t.Context()))
	if after := run(t, "sha256sum", journal); after != before {
		t.Error("the journal was written")
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
	run(t, "umount", r.vs[0].Dir)
	run(t, "mount", r.vs[0].Volume.Source, r.vs[0].Dir)
	r.vs[0].Volume, _ = scratch.Find(t, r.vs[0].Dir)
	r.fill(1 << 20)
	s = r.take()
	if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); string(b) != "small" {
		t.Errorf("it reads %q, %v; %v", b, err, s.Err())
	}
	r.must(s.Release(t.Context()))
}
