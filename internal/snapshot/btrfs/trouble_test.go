package btrfs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// nothingLeft fails when our folder is there, or a snapshot of ours.
func nothingLeft(t *testing.T, d disk) {
	t.Helper()
	if _, err := os.Lstat(d.in(folderName)); err == nil {
		t.Errorf("%s is left", folderName)
	}
}

// refused wants a code from Check, and from Prepare.
func refused(t *testing.T, v volume.Volume, want problem.Code) {
	t.Helper()
	p := New(host)
	hasCode(t, "check", p.Check(t.Context(), v), want)
	pending, err := p.Prepare(t.Context(), "refused", []snapshot.Target{of(v, ".")})
	hasCode(t, "prepare", err, want)
	if err == nil {
		must(t, pending.Abort(t.Context()))
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	scratch.Run(t, "mount", "-o", "remount,ro", d.Dir)
	v := find(t, d.Dir)
	refused(t, v, problem.VolumeReadOnly)
	// It must not become writable by that.
	if err := os.WriteFile(d.in("new"), nil, 0o600); err == nil {
		t.Error("the file system is writable")
	}
	if !find(t, d.Dir).ReadOnly {
		t.Error("the superblock is writable")
	}
	scratch.Run(t, "mount", "-o", "remount,rw", d.Dir)
	nothingLeft(t, d)
}

// A mount that is read-only, of a file system that is not, is no hindrance.
func TestReadOnlyMount(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	dir := d.Mount(t, "subvol=@,ro")
	s := take(t, of(find(t, dir), "."))[0]
	reads(t, s, map[string]string{".": "@"})
	if err := os.WriteFile(dir+"/new", nil, 0o600); err == nil {
		t.Error("the mount is writable")
	}
}

func TestReadOnlySubvolume(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	scratch.Run(t, "btrfs", "property", "set", d.in("@"), "ro", "true")
	s := take(t, of(d.mounted("@"), "."))[0]
	reads(t, s, map[string]string{".": "@"})
}

func TestOtherFileSystem(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	refused(t, find(t, v.Dir), problem.NoProvider)
}

// swapOn makes a swap file and uses it.
func swapOn(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	scratch.Run(t, "chattr", "+C", path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.Write(make([]byte, 4<<20))
	must(t, err)
	must(t, f.Sync())
	scratch.Run(t, "mkswap", path)
	scratch.Run(t, "swapon", path)
	t.Cleanup(func() { scratch.Run(t, "swapoff", path) })
}

// A swap file in use keeps its subvolume from being taken: all fails when it
// is selected, and it is a gap when it is nested.
func TestSwapFile(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/swap", "@/swap/inner", "@/other")
	v, swap := d.mounted("@"), d.mounted("@/swap")
	pending := prepare(t, of(v, "."))
	selected := prepare(t, of(v, "swap/in"))
	swapOn(t, d.in("@/swap/file"))
	refused(t, swap, problem.SwapActive)

	must(t, New(host).Check(t.Context(), v))
	s := take(t, of(v, "."))[0]
	shows(t, s, ". other", "swap:swap-active")

	// It came into use after Prepare.
	late := commit(t, pending)[0]
	shows(t, late, ". other", "swap:swap-active")
	reads(t, late, map[string]string{".": "@", "other": "@/other"})
	must(t, late.Release(t.Context()))
	_, err := selected.Commit(t.Context())
	hasCode(t, "commit", err, problem.SwapActive)
}

// A file system without room for a snapshot. That is hard to come by, as btrfs
// keeps a reserve, so this fills data, then metadata, until snapshots fail.
func TestFull(t *testing.T) {
	d := disk{scratch.New(t, "btrfs", 128*scratch.MiB, scratch.Format("--mixed")), t}
	d.create("@")
	v := d.mounted("@")
	fillUp(t, d.in("@"))
	pending, err := New(host).Prepare(t.Context(), "full", []snapshot.Target{of(v, ".")})
	if err == nil {
		_, err = pending.Commit(t.Context())
		must(t, pending.Abort(t.Context()))
	}
	hasCode(t, "full", err, problem.SnapshotFull)
	nothingLeft(t, d)
	if err := os.RemoveAll(d.in("@/fill")); err != nil {
		t.Error(err)
	}
}

// fillUp writes until not even a name finds room.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	must(t, os.Mkdir(dir+"/fill", 0o755))
	for _, size := range []int{1 << 20, 64 << 10, 4096, 1000, 0} {
		for i := 0; ; i++ {
			name := filepath.Join(dir, "fill", strings.Repeat("n", 200)+"-"+string(rune('a'+size%26))+"-"+strings.Repeat("x", i%7)+itoa(i))
			err := os.WriteFile(name, make([]byte, size), 0o600)
			if err == nil && i%50 == 0 {
				syscall.Sync()
			}
			if err != nil {
				break
			}
		}
		syscall.Sync()
	}
}

func itoa(i int) string {
	if i < 10 {
		return string(rune('0' + i))
	}
	return itoa(i/10) + string(rune('0'+i%10))
}

// A limit on a quota group lets no snapshot be made.
func TestQuota(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	scratch.Run(t, "btrfs", "quota", "enable", d.Dir)
	scratch.Run(t, "btrfs", "quota", "rescan", "-w", d.Dir)
	scratch.Run(t, "btrfs", "qgroup", "limit", "1", "0/5", d.Dir)
	_, err := New(host).Prepare(t.Context(), "quota", []snapshot.Target{of(d.mounted("@"), ".")})
	hasCode(t, "prepare", err, problem.SnapshotFull)
	scratch.Run(t, "btrfs", "quota", "disable", d.Dir)
	nothingLeft(t, d)
}

// Without root's rights nothing can be done, and that is said.
func TestNotAllowed(t *testing.T) {
	scratch.NeedRoot(t)
	if v := os.Getenv("STILLPOINT_TEST_UNPRIVILEGED"); v != "" {
		table, err := host(t.Context())
		must(t, err)
		for _, vol := range table.Volumes() {
			if string(vol.ID) == v {
				refused(t, vol, problem.NotAllowed)
				return
			}
		}
		t.Fatalf("no volume %s", v)
	}
	d := newDisk(t)
	d.create("@")
	v := d.mounted("@")
	// CAP_SYS_ADMIN is what is needed; without it root is nobody here, and
	// neither is the root of a user namespace.
	for _, nobody := range [][]string{{"setpriv", "--bounding-set", "-sys_admin"}, {"unshare", "--user", "--map-root-user", "--mount"}} {
		cmd := exec.Command(nobody[0], append(nobody[1:], os.Args[0], "-test.run", "^TestNotAllowed$", "-test.v")...)
		cmd.Env = append(os.Environ(), "STILLPOINT_TEST_UNPRIVILEGED="+string(v.ID))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%s: %v\n%s", nobody[0], err, out)
		}
	}
}

// A volume that is gone, or whose device has become another one.
func TestGone(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	v := d.mounted("@")
	other := v
	other.UUID = "00000000-0000-0000-0000-000000000001"
	refused(t, other, problem.VolumeLost)
	other = v
	other.Source, other.Stack = "/dev/none", nil
	refused(t, other, problem.VolumeLost)
	other = v
	other.Source = "/dev/root" // which the kernel may say, and which is not there
	must(t, New(host).Check(t.Context(), other))
	scratch.Run(t, "umount", v.Mounts[0].Point)
	d.remove("@")
	_, err := New(host).Prepare(t.Context(), "gone", []snapshot.Target{of(v, ".")})
	hasCode(t, "deleted", err, problem.VolumeLost)
	nothingLeft(t, d)
}

// Somebody else's .stillpoint is not touched.
func TestForeignFolder(t *testing.T) {
	for what, make := range map[string]func(t *testing.T, d disk){
		"of a user": func(t *testing.T, d disk) {
			must(t, os.Mkdir(d.in(folderName), 0o755))
			must(t, os.Chown(d.in(folderName), 1000, 1000))
		},
		"writable": func(t *testing.T, d disk) {
			must(t, os.Mkdir(d.in(folderName), 0o755))
			must(t, os.Chmod(d.in(folderName), 0o777))
		},
		"a link":    func(t *testing.T, d disk) { must(t, os.Symlink("@", d.in(folderName))) },
		"a file":    func(t *testing.T, d disk) { must(t, os.WriteFile(d.in(folderName), nil, 0o600)) },
		"subvolume": func(t *testing.T, d disk) { d.create(folderName) },
	} {
		t.Run(what, func(t *testing.T) {
			d := newDisk(t)
			d.create("@")
			make(t, d)
			before, err := os.Lstat(d.in(folderName))
			must(t, err)
			p := New(host)
			_, err = p.Prepare(t.Context(), "foreign", []snapshot.Target{of(d.mounted("@"), ".")})
			hasCode(t, "prepare", err, problem.LeftoverForeign)
			left, err := p.Leftovers(t.Context())
			hasCode(t, "leftovers", err, problem.LeftoverForeign)
			if len(left) > 0 {
				t.Errorf("%d leftovers", len(left))
			}
			after, err := os.Lstat(d.in(folderName))
			must(t, err)
			if !os.SameFile(before, after) || names(t, d.in("@")) != "in" {
				t.Error("it was touched")
			}
		})
	}
}

// Bad ids and targets are refused before anything is done.
func TestBadSet(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	v := d.mounted("@")
	p := New(host)
	for _, id := range []string{"", "UPPER", "a/b", "..", strings.Repeat("a", 33)} {
		if _, err := p.Prepare(context.Background(), id, []snapshot.Target{of(v, ".")}); err == nil {
			t.Errorf("the id %q was accepted", id)
		}
	}
	for _, path := range []string{"", "..", "/abs", "a/../../b"} {
		_, err := p.Prepare(context.Background(), "bad", []snapshot.Target{of(v, path)})
		hasCode(t, path, err, problem.PathMissing)
	}
	_, err := p.Prepare(context.Background(), "bad", []snapshot.Target{of(v)})
	hasCode(t, "no path", err, problem.PathMissing)
	nothingLeft(t, d)
}
