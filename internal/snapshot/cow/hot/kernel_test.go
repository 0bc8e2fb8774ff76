package hot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/scratch"
)

// expect fails unless the uses of the kernel are these, each "kind program
// inode path-in-dir".
func expect(t *testing.T, dir string, us []Use, want ...string) {
	t.Helper()
	var got []string
	for _, u := range us {
		if u.PID == 0 {
			got = append(got, fmt.Sprint(u.Kind, " ", u.Program, " ", u.Inode, " ", strings.TrimPrefix(u.Path, dir+"/")))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The backing file of a loop device is found, also when its name is gone; that
// of a read-only device is not.
func TestLoop(t *testing.T) {
	scratch.NeedRoot(t)
	volumes(t, func(t *testing.T, dir string) {
		expect(t, dir, scan(t, dir, Options{}))
		attach := func(name string, args ...string) (string, uint64) {
			path := filepath.Join(dir, name)
			must(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
			device := strings.TrimSpace(scratch.Run(t, "losetup", append(args, "--find", "--show", path)...))
			t.Cleanup(func() { scratch.Run(t, "losetup", "--detach", device) })
			return filepath.Base(device), inodeOf(t, path)
		}
		d1, i1 := attach("disk")
		attach("read-only", "--read-only")
		d2, i2 := attach("removed")
		must(t, os.Remove(filepath.Join(dir, "removed")))
		expect(t, dir, scan(t, dir, Options{}),
			fmt.Sprintf("loop %s %d disk", d1, i1), fmt.Sprintf("loop %s %d removed (deleted)", d2, i2))
	})
}

func TestSwap(t *testing.T) {
	scratch.NeedRoot(t)
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	path := filepath.Join(v.Dir, "swap file")
	must(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	scratch.Run(t, "mkswap", path)
	scratch.Run(t, "swapon", "--priority", "0", path)
	t.Cleanup(func() { scratch.Run(t, "swapoff", path) })
	expect(t, v.Dir, scan(t, v.Dir, Options{}), fmt.Sprintf("swap swap %d swap file", inodeOf(t, path)))
}

// What the kernel serves is read from what it says; this one serves nothing,
// so its words are recorded ones.
func TestServers(t *testing.T) {
	dir := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	for _, name := range []string{"srv/disk", "srv/shared files/x", "srv/read-only/x", "srv/namespace", "srv/aquota.user", "srv/users", "srv/swapped file"} {
		put(name, "x")
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	escaped := strings.ReplaceAll(dir, " ", `\040`)
	put("proc/fs/nfsd/exports", "# Version 1.1\n# Path Client(Flags) # IPs\n"+
		escaped+"/srv/shared\\040files\t192.168.0.0/24(rw,root_squash,sync,wdelay,no_subtree_check,uuid=1:2:3:4,sec=1)\n"+
		escaped+"/srv/read-only\t*(ro,root_squash,sync,wdelay,no_subtree_check)\n"+
		escaped+"/srv/vanished\t*(rw)\n/proc\t*(rw)\n")
	put("config/target/core/fileio_0/disk/info", "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384\n"+
		"        TCM FILEIO ID: 0        File: "+in("srv/disk")+"  Size: 1048576  Mode: O_DSYNC Async: 0\n")
	put("config/target/core/fileio_1/device/info", "        TCM FILEIO ID: 1        File: /dev/null  Size: 1048576  Mode: O_DSYNC Async: 0\n")
	put("config/target/core/iblock_0/device/info", "        iBlock device: sda  UDEV PATH: /dev/sda  readonly: 0\n")
	put("config/nvmet/subsystems/one/namespaces/1/device_path", in("srv/namespace")+"\n")
	put("config/nvmet/subsystems/one/namespaces/2/device_path", "(null)\n")
	put("config/nvmet/subsystems/one/namespaces/3/device_path", "/dev/zero\n")
	put("sys/block/zloop0/size", "0\n")
	put("sys/class/ksmbd-control/version", "1\n")
	put("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"+
		escaped+"/srv/swapped\\040file                     file\t\t1020\t\t0\t\t-2\n/dev/dm-1                               partition\t8388604\t\t0\t\t-2\n")
	put("proc/thread-self/mountinfo", "36 35 98:0 / "+escaped+"/srv rw,noatime shared:1 - ext4 /dev/vda1 rw,usrquota,usrjquota=users,jqfmt=vfsv0\n"+
		"37 35 98:0 /a "+escaped+"/srv rw,noatime - ext4 /dev/vda1 rw,usrquota\n"+
		"38 35 98:1 / "+escaped+"/srv rw,noatime - ext4 /dev/vda1 rw,usrquota,grpquota\n")
	us, err := Scan(t.Context(), deviceOf(t, dir), Options{Proc: in("proc"), Sys: in("sys"), Config: in("config")})
	must(t, err)
	with := func(what, path string) string { return fmt.Sprint(what, " ", inodeOf(t, in(path)), " ", path) }
	expect(t, dir, us,
		with("kernel nfsd", "srv/shared files"), "kernel nfsd 0 srv/vanished",
		with("kernel target", "srv/disk"), with("kernel nvmet", "srv/namespace"),
		"kernel zloop 0 files of zoned loop devices", "kernel ksmbd 0 shares of the kernel's SMB server",
		with("swap swap", "srv/swapped file"), with("quota quota", "srv/users"), with("quota quota", "srv/aquota.user"))
	for _, u := range us {
		if want := u.Path == in("srv/shared files"); u.Tree != want {
			t.Errorf("%+v: is it a tree? %t", u, want)
		}
	}
}

// The options of overlayfs come with two kinds of escapes (recorded, 6.18).
func TestOverlayOptions(t *testing.T) {
	got := overlaysOf("30 27 0:45 / /merged rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/up\\134\\054per\\040d\\134\\134ir,workdir=/w\n" +
		"31 27 0:46 / /lower-only rw - overlay overlay ro,lowerdir=/a:/b\n" +
		"32 27 0:47 / /x rw - ext4 /dev/vda rw,upperdir=/none\n33 27 0:48 / /relative rw - overlay none rw,upperdir=upper\n")
	if want := "map[0:45:/up,per d\\ir 0:48:upper]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// An overlay on another volume is none of ours, and one whose upper directory
// cannot be told is named.
func TestOverlays(t *testing.T) {
	scratch.NeedRoot(t)
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	other := t.TempDir()
	mount := func(options string) {
		t.Helper()
		point := t.TempDir()
		must(t, syscall.Mount("overlay", point, "overlay", 0, "lowerdir="+t.TempDir()+","+options))
		t.Cleanup(func() { _ = syscall.Unmount(point, syscall.MNT_DETACH) })
	}
	make := func(base string) string {
		must(t, os.MkdirAll(base+"/upper", 0o755))
		must(t, os.MkdirAll(base+"/work", 0o755))
		return "upperdir=" + base + "/upper,workdir=" + base + "/work"
	}
	mount(make(other))
	if us := scan(t, v.Dir, Options{}); len(us) > 0 {
		t.Errorf("got %+v", us)
	}
	mount(make(v.Dir))
	must(t, os.Rename(v.Dir+"/upper", v.Dir+"/moved"))
	us := scan(t, v.Dir, Options{})
	expect(t, v.Dir, us, "overlay overlay 0 upper")
	must(t, os.Rename(v.Dir+"/moved", v.Dir+"/upper"))
	expect(t, v.Dir, scan(t, v.Dir, Options{}), fmt.Sprintf("overlay overlay %d upper", inodeOf(t, v.Dir+"/upper")))
}

// What people read says who, how many and what to do.
func TestReport(t *testing.T) {
	us := []Use{
		{Kind: Descriptor, Inode: 1, PID: 123, Program: "postgres"}, {Kind: Descriptor, Inode: 2, PID: 123, Program: "postgres"},
		{Kind: Descriptor, Inode: 1, PID: 124, Program: "postgres"},
		{Kind: Mapping, Inode: 1, PID: 123, Program: "postgres", From: 1, To: 2}, {Kind: Mapping, Inode: 1, PID: 123, Program: "postgres", From: 4, To: 8},
		{Kind: Loop, Inode: 7, Program: "loop3", Path: "/srv/disk"},
		{Kind: Swap, Program: "swap", Path: "/a"}, {Kind: Swap, Program: "swap", Path: "/b"}, {Kind: Swap, Program: "swap", Path: "/c"}, {Kind: Swap, Program: "swap", Path: "/d"}, {Kind: Swap, Program: "swap", Path: "/e"},
	}
	var got []string
	for _, g := range ByProcess(us) {
		got = append(got, g.String())
	}
	want := []string{
		"postgres (pid 123) has 2 files open for writing since before the filter; restart it once after the agent runs",
		"postgres (pid 124) has 1 file open for writing since before the filter; restart it once after the agent runs",
		"postgres (pid 123) has 1 file mapped, and stores to a mapping make no event",
		"/dev/loop3 writes to /srv/disk; back up what is mounted from it instead",
		"swap goes to /a, /b, /c, and 2 more; leave that out",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
