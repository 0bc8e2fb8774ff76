//go:build zfs

package zfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// A dataset is shown with what is mounted in it, each dataset as it was.
func TestChildren(t *testing.T) {
	p := newPool(t)
	p.put("")
	p.create("a", "a/b", "My Media", "elsewhere", "legacy", "off", "off/child", "noauto", "forgotten")
	p.zfs("set", "mountpoint="+p.dir+"/a/other", p.name+"/elsewhere")
	p.zfs("set", "mountpoint=legacy", p.name+"/legacy")
	must(t, os.Mkdir(p.dir+"/l", 0o755))
	scratch.Run(t, "mount", "-t", "zfs", p.name+"/legacy", p.dir+"/l")
	p.zfs("set", "canmount=off", p.name+"/off")
	p.zfs("set", "canmount=noauto", p.name+"/noauto")
	p.zfs("unmount", p.name+"/noauto")
	p.zfs("unmount", p.name+"/forgotten")
	p.zfs("create", "-V", "16M", p.name+"/zvol")
	s := take(t, of(p.volume("."), "."))[0]
	for name := range map[string]bool{"": true, "a": true, "a/b": true, "My Media": true, "a/other": true, "l": true, "off/child": true} {
		must(t, os.WriteFile(filepath.Join(p.dir, name, "in"), []byte("changed"), 0o644))
	}
	shows(t, s, ". My Media a a/b a/other l off/child", "forgotten:volume-lost noauto:rule")
	reads(t, s, map[string]string{".": "", "a": "a", "a/b": "a/b", "My Media": "My Media", "a/other": "elsewhere", "l": "legacy", "off/child": "off/child"})
	for _, part := range s.Parts() {
		if !part.Taken.Equal(s.Parts()[0].Taken) || part.Taken.IsZero() {
			t.Errorf("%s is of another instant", part.Path)
		}
	}

	// Of a part, only what is in it; and two targets share what both show.
	snaps := take(t, of(p.volume("."), "a/b", "l"), of(p.volume("a"), "."))
	shows(t, snaps[0], ". a a/b l", "")
	shows(t, snaps[1], ". b other", "")
	must(t, snaps[0].Release(t.Context()))
	if err := snaps[1].Err(); err != nil {
		t.Error(err)
	}
	reads(t, snaps[1], map[string]string{"b": "changed"})
}

// An encrypted dataset is taken like others, and named where its key is not there.
func TestEncrypted(t *testing.T) {
	p := newPool(t)
	key := filepath.Join(filepath.Dir(p.file), "key")
	must(t, os.WriteFile(key, []byte("correct horse"), 0o600))
	p.zfs("create", "-o", "encryption=on", "-o", "keyformat=passphrase", "-o", "keylocation=file://"+key, p.name+"/secret")
	p.put("secret")
	s := take(t, of(p.volume("."), "."))[0]
	shows(t, s, ". secret", "")
	reads(t, s, map[string]string{"secret": "secret"})
	must(t, s.Release(t.Context()))
	p.retry("zfs", "unmount", p.name+"/secret")
	p.retry("zfs", "unload-key", p.name+"/secret")
	s = take(t, of(p.volume("."), "."))[0]
	shows(t, s, ".", "secret:volume-lost")
}

// Datasets come, go and are renamed between Prepare and Commit.
func TestChangesBeforeCommit(t *testing.T) {
	for _, test := range []struct {
		name        string
		change      func(p testPool)
		parts, gaps string
	}{
		{"none", func(testPool) {}, ". a a/b c", ""},
		{"created", func(p testPool) { p.create("new", "a/new") }, ". a a/b c", "a/new:volume-late new:volume-late"},
		{"destroyed", func(p testPool) { p.zfs("destroy", p.name+"/c") }, ". a a/b", "c:volume-lost"},
		{"destroyed, with what is in it", func(p testPool) { p.zfs("destroy", "-r", p.name+"/a") }, ". c", "a:volume-lost a/b:volume-lost"},
		{"renamed", func(p testPool) { p.zfs("rename", p.name+"/c", p.name+"/d") }, ". a a/b", "c:volume-lost d:volume-late"},
		{"unmounted", func(p testPool) { p.zfs("unmount", p.name+"/c") }, ". a a/b c", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPool(t)
			p.create("a", "a/b", "c")
			pending := prepare(t, of(p.volume("."), "."))
			test.change(p)
			snaps, err := pending.Commit(t.Context())
			must(t, err)
			shows(t, snaps[0], test.parts, test.gaps)
			must(t, snaps[0].Release(t.Context()))
			if left := p.snapshots(); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// A selected dataset that is gone, or another one by now, fails the set.
func TestSelectedVanishes(t *testing.T) {
	p := newPool(t)
	p.create("a")
	pending := prepare(t, of(p.volume("a"), "."))
	p.zfs("destroy", p.name+"/a")
	_, err := pending.Commit(t.Context())
	hasCode(t, "destroyed", err, problem.VolumeLost)
	must(t, pending.Abort(t.Context()))

	p.create("a")
	pending = prepare(t, of(p.volume("a"), "."))
	p.zfs("destroy", p.name+"/a")
	p.create("a")
	snaps, err := pending.Commit(t.Context())
	must(t, err)
	hasCode(t, "replaced", snaps[0].Err(), problem.SnapshotLost)
	must(t, snaps[0].Release(t.Context()))
	if left := p.snapshots(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// What happens to a snapshot is noticed, and not forgotten.
func TestErr(t *testing.T) {
	p := newPool(t)
	p.create("a")
	for _, early := range []bool{true, false} {
		snaps, err := prepare(t, of(p.volume("a"), ".")).Commit(t.Context())
		must(t, err)
		s := snaps[0]
		name := p.snapshots()
		if !early {
			must(t, s.Err())
			if out, err := runs("zfs", "destroy", name); err == nil {
				t.Fatalf("it is not held: %s", out)
			}
			tag := strings.Fields(p.zfs("holds", "-H", name))[1]
			p.zfs("release", tag, name)
			if out, err := runs("zfs", "destroy", name); err == nil {
				t.Fatalf("it is not in use: %s", out)
			}
			p.zfs("rename", p.name+"/a", p.name+"/b")
		} else {
			p.zfs("destroy", name)
		}
		hasCode(t, "err", s.Err(), problem.SnapshotLost)
		hasCode(t, "err again", s.Err(), problem.SnapshotLost)
		must(t, s.Release(t.Context()))
		if left := p.snapshots(); left != "" {
			t.Errorf("left: %s", left)
		}
	}
}

// Two pools are two instants, whose times differ; each shows one.
func TestTwoPools(t *testing.T) {
	p, q := newPool(t), newPool(t)
	p.create("a")
	q.create("b")
	pending := prepare(t, of(p.volume("."), "."), of(q.volume("b"), "."))
	if n := pending.Instants(); n != 2 {
		t.Errorf("%d instants", n)
	}
	if pending.Suspends() {
		t.Error("it suspends")
	}
	snaps, err := pending.Commit(t.Context())
	must(t, err)
	shows(t, snaps[0], ". a", "")
	shows(t, snaps[1], ".", "")
	if a, b := snaps[0].Parts(), snaps[1].Parts(); a[0].Taken != a[1].Taken || a[0].Taken.Equal(b[0].Taken) {
		t.Errorf("%v, %v", a, b)
	}
	for _, s := range snaps {
		must(t, s.Release(t.Context()))
	}
}

// When one pool cannot be taken, nothing of the other one stays.
func TestOneOfTwoPools(t *testing.T) {
	p, q := newPool(t), newPool(t)
	pending := prepare(t, of(p.volume("."), "."), of(q.volume("."), "."))
	scratch.Run(t, "zpool", "export", "-f", q.name)
	_, err := pending.Commit(t.Context())
	hasCode(t, "commit", err, problem.VolumeLost)
	err = pending.Abort(t.Context())
	if err != nil && !problem.Is(err, problem.ReleaseFailed) {
		t.Error(err)
	}
	if left := p.snapshots(); left != "" {
		t.Errorf("left: %s", left)
	}
	scratch.Run(t, "zpool", "import", "-d", filepath.Dir(q.file), q.name)
	must(t, pending.Abort(t.Context()))
}

// A file system of ZFS cannot be frozen, which is why nothing of it is held.
func TestNoFreeze(t *testing.T) {
	p := newPool(t)
	if out, err := runs("fsfreeze", "-f", p.dir); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("%s, %v", out, err)
	}
}

// A limit of snapshots is not for root, and neither it nor a quota in which nothing can be
// written any more keeps a snapshot from being made, with all that could be written.
func TestFull(t *testing.T) {
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	p.zfs("set", "snapshot_limit=1", p.name)
	p.zfs("snapshot", p.name+"@mine")
	s := take(t, of(p.volume("a"), "."))[0]
	must(t, s.Err())
	p.zfs("set", "quota=32M", p.name+"/a")
	large := filepath.Join(p.dir, "a/large")
	f, err := os.Create(large)
	must(t, err)
	defer f.Close()
	if err := rewrite(f, 64*mib); !errors.Is(err, syscall.EDQUOT) {
		t.Fatalf("the quota is not full: %v", err)
	}
	must(t, s.Err())
	must(t, s.Release(t.Context()))
	must(t, syncPool(p))
	want, err := os.ReadFile(large)
	must(t, err)
	s = take(t, of(p.volume("a"), "."))[0]
	reads(t, s, map[string]string{".": "a"})
	if got, err := os.ReadFile(filepath.Join(s.Root(), "large")); err != nil || !bytes.Equal(got, want) || len(got) < 16*mib {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
	must(t, s.Err())
}

// A pool that is filled between Prepare and Commit says that it is full, and nothing is left.
func TestFullPool(t *testing.T) {
	p := newPool(t)
	p.create("a")
	pending := prepare(t, of(p.volume("a"), "."))
	p.narrow(64 << 10) // a snapshot must find 144 KiB (dst_space in dsl_synctask.c)
	_, err := pending.Commit(t.Context())
	hasCode(t, "commit", err, problem.SnapshotFull)
	must(t, pending.Abort(t.Context()))
	if left := p.snapshots() + recordNames(t); left != "" {
		t.Errorf("left: %s", left)
	}
}

// A pool that is imported read-only has no snapshots.
func TestReadOnly(t *testing.T) {
	p := newPool(t)
	scratch.Run(t, "zpool", "export", p.name)
	scratch.Run(t, "zpool", "import", "-o", "readonly=on", "-d", filepath.Dir(p.file), p.name)
	v := p.volume(".")
	hasCode(t, "check", provider().Check(t.Context(), v), problem.VolumeReadOnly)
	_, err := provider().Prepare(t.Context(), "readonly", nil)
	if err == nil {
		t.Error("a set of nothing")
	}
	// A dataset that only its owner made read-only is taken like others.
	scratch.Run(t, "zpool", "export", p.name)
	scratch.Run(t, "zpool", "import", "-d", filepath.Dir(p.file), p.name)
	p.zfs("set", "readonly=on", p.name)
	v = p.volume(".")
	must(t, provider().Check(t.Context(), v))
	shows(t, take(t, of(v, "."))[0], ".", "")
}

// A snapshot of ZFS itself, which .zfs has mounted, is refused, and none of what is nested.
func TestSnapshotDirectory(t *testing.T) {
	p := newPool(t)
	p.put("")
	p.zfs("snapshot", p.name+"@daily")
	_, err := os.ReadDir(p.dir + "/.zfs/snapshot/daily")
	must(t, err)
	v := p.volume(".zfs/snapshot/daily")
	hasCode(t, "check", provider().Check(t.Context(), v), problem.NoProvider)
	s := take(t, of(p.volume("."), "."))[0]
	shows(t, s, ".", "")
	p.retry("umount", p.dir+"/.zfs/snapshot/daily")
}
