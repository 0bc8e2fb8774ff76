package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/btrfs"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/volume"
)

const mib = scratch.MiB

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

func providers() []snapshot.Provider {
	return []snapshot.Provider{btrfs.New(host), cow.New(host, cow.Options{})}
}

// A volume that can be taken, one that cannot, and the same when but looked at.
func TestProviders(t *testing.T) {
	good, old := scratch.New(t, "ext4", 64*mib), scratch.New(t, "ext4", 64*mib, scratch.Format("-I", "128"))
	check := func(s Subject) []Finding { return look(t, Providers(s, Choose(t.Context(), s, providers()))) }
	s := subject(t, good.Dir)
	healthy(t, check(s))
	says(t, check(s), OK, "", good.Dir, "cow takes it")
	says(t, check(subject(t, old.Dir)), Failure, problem.NoProvider, old.Dir, "128 bytes")
	// Of a whole host that may well be so.
	fs := check(subject(t))
	says(t, fs, Warning, problem.NoProvider, old.Dir, "128 bytes")
	says(t, fs, OK, "", good.Dir, "cow takes it")
}

func TestResident(t *testing.T) {
	v := volume.Volume{ID: "v", FSType: "xfs", Mounts: []volume.Mount{{Point: "/srv"}}}
	ask := func(w Watching, err error) func(context.Context) (Watching, error) {
		return func(context.Context) (Watching, error) { return w, err }
	}
	healthy(t, look(t, Resident(nil, nil)))
	healthy(t, look(t, Resident([]volume.Volume{v}, ask(Watching{Volumes: []volume.ID{"v"}}, nil))))
	says(t, look(t, Resident([]volume.Volume{v}, ask(Watching{}, problem.Newf(problem.NoAgent, "", "no agent answers")))), Warning, problem.NoAgent, "/srv")
	says(t, look(t, Resident([]volume.Volume{v}, ask(Watching{Volumes: []volume.ID{"w"}}, nil))), Warning, problem.NoAgent, "/srv", "not watch")
	says(t, look(t, Resident([]volume.Volume{v}, ask(Watching{}, problem.Newf(problem.NotAllowed, "", "only root")))), Unknown, problem.NotAllowed)
}

func TestCache(t *testing.T) {
	large := scratch.New(t, "ext4", 4096*mib, scratch.Format("-N", "1024"))
	other := scratch.New(t, "ext4", 64*mib)
	place := scratch.New(t, "ext4", 400*mib)
	fill(t, large.Dir, 100*mib)
	check := func(paths ...string) []Finding {
		s := subject(t, paths...)
		return look(t, Cache(Here(), s, Caching{Volumes: s.Volumes, Choice: snapshot.CacheChoice{Dir: place.Dir}}))
	}
	healthy(t, check(large.Dir))
	s := subject(t, large.Dir)
	if vs := CacheVolumes(s, Caching{Volumes: s.Volumes, Choice: snapshot.CacheChoice{Dir: place.Dir}}); len(vs) == 0 || vs[0].ID != find(t, place.Dir).ID && vs[len(vs)-1].ID != find(t, place.Dir).ID {
		t.Errorf("cache files go to %v", vs)
	}

	fill(t, place.Dir, 90*mib)
	says(t, check(large.Dir), Warning, problem.CacheSmall, large.Dir, place.Dir)
	healthy(t, check(other.Dir)) // 90 MiB are enough for so little
	// Each would have room, but not both at once; one after the other they would.
	says(t, check(large.Dir, other.Dir), Failure, problem.CacheNowhere, place.Dir)
	s = subject(t, large.Dir, other.Dir)
	says(t, look(t, Cache(Here(), s, Caching{Volumes: s.Volumes, Apart: true, Choice: snapshot.CacheChoice{Dir: place.Dir}})), OK, "", other.Dir)

	must(t, os.Truncate(filepath.Join(place.Dir, "fill"), 0))
	fill(t, place.Dir, 40*mib)
	says(t, check(other.Dir), Failure, problem.CacheNowhere, place.Dir)
	s = subject(t, other.Dir)
	says(t, look(t, Cache(Here(), s, Caching{Volumes: s.Volumes, Choice: snapshot.CacheChoice{Dir: place.Dir + "/none"}})), Failure, problem.PathMissing)
	healthy(t, look(t, Cache(Here(), s, Caching{})))
}

// Memory cannot be made short here without being a burden for all.
func TestMemory(t *testing.T) {
	short := recorded(t, map[string]string{"proc/meminfo": "MemTotal:        2097152 kB\nMemFree:           50000 kB\nMemAvailable:     102400 kB\n"})
	fs, err := memory(short, 1)
	must(t, err)
	says(t, fs, Warning, problem.MemoryShort, "100 MiB", "128 MiB")
	if fs, err := memory(Here(), 1); err != nil || len(fs) > 0 {
		t.Errorf("this host: %+v, %v", fs, err)
	}
	if _, err := memory(recorded(t, map[string]string{"proc/meminfo": "odd\n"}), 1); !problem.Is(err, problem.LookFailed) {
		t.Errorf("got %v", err)
	}
}

func TestFragments(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			size := map[string]int64{"ext4": 64 * mib, "xfs": 320 * mib}[fs]
			v := scratch.New(t, fs, size)
			whole := filepath.Join(v.Dir, "whole")
			must(t, os.WriteFile(whole, make([]byte, mib), 0o644))
			healthy(t, look(t, Fragments(subject(t, v.Dir), []volume.Volume{find(t, v.Dir)})))

			// Of a file with each second block taken away each block is a piece; of
			// one that had all the free space, these are pieces, too.
			f, err := os.Create(filepath.Join(v.Dir, "pieces"))
			must(t, err)
			defer f.Close()
			var st syscall.Statfs_t
			must(t, syscall.Statfs(v.Dir, &st))
			length := int64(st.Bavail) * st.Frsize * 9 / 10 &^ 8191
			must(t, unix.Fallocate(int(f.Fd()), 0, 0, length))
			const holes = 2500
			for i := int64(0); i < length/8192 && i < 8*holes; i++ {
				must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*8192, 4096))
			}
			must(t, f.Sync())
			got := look(t, Fragments(subject(t, v.Dir), []volume.Volume{find(t, v.Dir)}))
			says(t, got, Warning, problem.Fragmented, "/pieces", " pieces", "on average")
			says(t, got, Warning, problem.Fragmented, v.Dir, "free space")
		})
	}
}

// A scanner that runs for real sees one volume and not the other.
func TestScanners(t *testing.T) {
	scanned, other := scratch.New(t, "ext4", 64*mib), scratch.New(t, "xfs", 320*mib)
	nobody := func(int) bool { return false }
	check := func(v *scratch.Volume, caches ...volume.Volume) []Finding {
		s := subject(t, v.Dir)
		return look(t, Scanners(Here(), s, caches, nobody))
	}
	healthy(t, check(scanned))
	c := child(t, true, roleVariable+"="+scanned.Dir, os.Args[0])
	who := " (pid " + strconv.Itoa(c.Process.Pid) + ")"
	says(t, check(scanned), Warning, problem.ScannerActive, who, scanned.Dir, "a backup reads")
	healthy(t, check(other))
	says(t, check(other, find(t, scanned.Dir)), Warning, problem.ScannerActive, who, scanned.Dir, "cache file")
	if fs := look(t, Scanners(Here(), subject(t, scanned.Dir), nil, func(pid int) bool { return pid == c.Process.Pid })); Worst(fs) != OK {
		t.Errorf("ours: %+v", fs)
	}
	if own := Own(Here()); !own(c.Process.Pid) || own(1) {
		t.Error("who runs this program is not told from who does not")
	}
	// A helper of the agent, after the program was replaced.
	dir := t.TempDir()
	scratch.Run(t, "cp", "/bin/sleep", dir+"/stillpoint")
	must(t, os.Symlink(dir+"/stillpoint", dir+"/exe"))
	helper := child(t, false, "", dir+"/exe", "600").Process.Pid
	soon(t, "it has its name", func() bool { return program("/proc/"+strconv.Itoa(helper)) == "exe" })
	must(t, os.Remove(dir+"/stillpoint"))
	if !Own(Here())(helper) {
		t.Error("a helper is not told from others")
	}
}

// Lines as the kernel prints them (fs/notify/fdinfo.c): of the agent's idle
// filter, of inodes, mounts and file systems.
func TestParseMarks(t *testing.T) {
	got := parseMarks("pos:\t0\nflags:\t02004002\nmnt_id:\t16\nino:\t1\nfanotify flags:19 event-flags:48800\n" +
		"fanotify sdev:700003 mflags:0 mask:20000 ignored_mask:20000\n" +
		"fanotify sdev:fe00001 mflags:0 mask:120000 ignored_mask:20000\n" +
		"fanotify mnt_id:1c mflags:0 mask:10000 ignored_mask:0\n" +
		"fanotify ino:2 sdev:800013 mflags:0 mask:8000018 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0200000000000000\n" +
		"fanotify ino:2 sdev:800013 mflags:0 mask:8040000 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0200000000000000\n")
	if want := "[{254:1 0} { 28} {8:19 0}]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// A private copy of the mounts keeps a volume, one that is a slave does not.
func TestNamespaces(t *testing.T) {
	v := scratch.New(t, "ext4", 64*mib)
	s := subject(t, v.Dir)
	nobody := func(int) bool { return false }
	unshare := func(propagation string) int {
		// What other tests have mounted would be kept in use, too.
		others := `grep -o "[^ ]*/stillpoint-scratch-[^ ]*/mount[0-9]*" /proc/self/mounts | grep -vx ` + v.Dir + ` | xargs -r umount -l`
		c := child(t, true, "", "unshare", "--mount", "--propagation", propagation, "sh", "-c", others+"; echo ready; read x; exit 0")
		return c.Process.Pid
	}
	mine := func(pid int) (fs []Finding) {
		for _, f := range look(t, Namespaces(Here(), s, nobody)) {
			if f.Result != Warning || strings.Contains(f.Subject, fmt.Sprintf("(pid %d)", pid)) {
				fs = append(fs, f)
			}
		}
		return fs
	}
	// The volume's mount must be shared for a slave of it to be one.
	scratch.Run(t, "mount", "--make-shared", v.Dir)
	slave := unshare("slave")
	if fs := mine(slave); len(fs) > 0 && Worst(fs) != OK {
		t.Errorf("a slave: %+v", fs)
	}
	private := unshare("private")
	says(t, mine(private), Warning, problem.SnapshotHeld, v.Dir, fmt.Sprintf("(pid %d)", private))
	for _, f := range look(t, Namespaces(Here(), s, func(pid int) bool { return pid == private })) {
		if strings.Contains(f.Subject, fmt.Sprintf("(pid %d)", private)) {
			t.Errorf("ours: %+v", f)
		}
	}
}

// Of mounts of snapshots, as mountinfo shows them in a container.
func TestKeeps(t *testing.T) {
	fs := keeps(Subject{}, "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"+
		"2 1 0:50 / /srv ro - fuse.stillpoint stillpoint ro,user_id=0\n"+
		"3 1 0:51 /@/.stillpoint/abc/0 /home ro master:3 - btrfs /dev/sdb ro\nodd\n", "nginx (pid 7) of nginx.service")
	says(t, fs, Warning, problem.SnapshotHeld, "nginx.service", "2 mounts of snapshots")
	if fs := keeps(Subject{}, "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", "x"); len(fs) > 0 {
		t.Errorf("got %+v", fs)
	}
	h := recorded(t, map[string]string{"proc/7/comm": "nginx\n", "proc/7/cgroup": "0::/system.slice/nginx.service\n"})
	if got := who(filepath.Join(h.Proc, "7"), 7); got != "nginx (pid 7) of nginx.service" {
		t.Errorf("got %q", got)
	}
}

// Who looks from a namespace of its own is told of no thread of the kernel, and the
// first process's is not somebody's own.
func TestNamespaceOfHost(t *testing.T) {
	v := scratch.New(t, "ext4", 64*mib)
	h := recorded(t, map[string]string{
		"proc/thread-self/x": "", "proc/1/comm": "init\n", "proc/2/comm": "kthreadd\n", "proc/3/comm": "kworker\n", "proc/4/comm": "nginx\n",
	})
	s := subject(t, v.Dir)
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	private := regexp.MustCompile(` (shared|master):\d+`).ReplaceAll(info, nil)
	for pid, ns := range map[string]string{"thread-self": "mnt:[9]", "1": "mnt:[1]", "2": "mnt:[1]", "3": "mnt:[2]", "4": "mnt:[3]"} {
		dir := filepath.Join(h.Proc, pid)
		scratch.Run(t, "mkdir", "-p", dir+"/ns")
		if err := errors.Join(os.Symlink(ns, dir+"/ns/mnt"), os.WriteFile(dir+"/mountinfo", private, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/sbin/nginx", filepath.Join(h.Proc, "4/exe")); err != nil {
		t.Fatal(err)
	}
	fs := look(t, Namespaces(h, s, func(int) bool { return false }))
	says(t, fs, Warning, problem.SnapshotHeld, "nginx (pid 4)", v.Dir)
	for _, f := range fs {
		if f.Subject != "nginx (pid 4)" && f.Result != OK {
			t.Errorf("it says %+v", f)
		}
	}
}
