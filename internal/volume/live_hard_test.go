package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// TestLiveTwins mounts block-wise copies beside their originals: two volumes
// that have one UUID must not get one ID.
func TestLiveTwins(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if _, err := os.Stat("/sys/fs/btrfs/features/temp_fsid"); err != nil {
		t.Skip("needs Linux 6.7, to mount a copy of a btrfs")
	}
	dir := scratch(t)
	for _, c := range []struct {
		fsType, options string
		size            int64
		mkfs            []string
	}{
		{"ext4", "loop", 16 << 20, []string{"mkfs.ext4", "-q"}},
		{"xfs", "loop,nouuid", 320 << 20, []string{"mkfs.xfs", "-q"}},
		{"btrfs", "loop", 128 << 20, []string{"mkfs.btrfs", "-q"}},
	} {
		img := image(t, filepath.Join(dir, c.fsType), c.size, c.mkfs...)
		uuid := run(t, "blkid", "-p", "-o", "value", "-s", "UUID", img)
		run(t, "cp", "--sparse=always", img, img+".copy")
		a, b := makeDir(t, dir, c.fsType+"-a"), makeDir(t, dir, c.fsType+"-b")
		run(t, "mount", "-o", c.options, img, a)
		run(t, "mount", "-o", c.options, img+".copy", b)
		table := readLive(t)
		suffix := ""
		if c.fsType == "btrfs" {
			suffix = "/5"
		}
		copied, _, _, err := table.Find(b)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, table, a, ID(uuid+suffix), a, ".", a)
		expect(t, table, b, ID(uuid+"@"+copied.Device+suffix), b, ".", b)
		if c.fsType == "btrfs" { // the kernel says which is which, not the order
			again := makeDir(t, dir, "again")
			bind(t, a, again)
			run(t, "umount", a)
			expect(t, readLive(t), again, ID(uuid+suffix), again, ".", again)
			a = again
		}
		run(t, "umount", a)
		expect(t, readLive(t), b, ID(uuid+suffix), b, ".", b) // alone, it is what it is
	}
}

// TestLiveHost reads this machine as it is: the kernel must agree about which
// mount shows each point.
func TestLiveHost(t *testing.T) {
	var table *Table
	for range 5 { // other tests mount and unmount
		table = readLive(t)
		if !disagrees(t, table, func(string, ...any) {}) {
			break
		}
	}
	disagrees(t, table, t.Errorf)
	ids := map[ID]bool{}
	for _, v := range table.Volumes() {
		if ids[v.ID] {
			t.Errorf("two volumes are %s", v.ID)
		}
		ids[v.ID] = true
		if v.ID == "" || v.Kind == "" || len(v.Mounts) == 0 {
			t.Errorf("incomplete: %+v", v)
		}
	}
	v, m, rel, err := table.Find("/etc/../etc/passwd")
	if err != nil || filepath.Join("/", m.Point, strings.TrimPrefix(rel, strings.TrimPrefix(m.Root, "/"))) != "/etc/passwd" {
		t.Errorf("got %s, %+v, %s, %v", v.ID, m, rel, err)
	}
	if v.Size == 0 && v.Kind == Local {
		t.Errorf("no size: %+v", v)
	}
}

func disagrees(t *testing.T, table *Table, report func(string, ...any)) bool {
	t.Helper()
	wrong := false
	for _, m := range table.Below("/") {
		if m.Volume.Kind == Network {
			continue
		}
		canonical, id, err := host{}.Locate(m.Mount.Point)
		if err != nil || canonical != m.Mount.Point || id != m.Mount.ID {
			report("%q: kernel says %q, mount %d, %v; table says %d", m.Mount.Point, canonical, id, err, m.Mount.ID)
			wrong = true
		}
	}
	return wrong
}

// TestLiveDeadServers mounts FUSE file systems whose programs never answer:
// one that says it is remote, and one on a block device.
func TestLiveDeadServers(t *testing.T) {
	t.Parallel() // it waits for seconds
	if !inNamespace(t) {
		return
	}
	dir := scratch(t)
	loop := run(t, "losetup", "--find", "--show", image(t, filepath.Join(dir, "image"), 1<<20, "true"))
	remote, local := makeDir(t, dir, "remote"), makeDir(t, dir, "local")
	silent(t, "me@host:/srv", remote, "fuse.sshfs")
	silent(t, loop, local, "fuseblk")
	run(t, "losetup", "--detach", loop) // when it is unmounted, however that comes
	start := time.Now()
	table := readLive(t)
	if d := time.Since(start); d < answerLimit || d > answerLimit+time.Second {
		t.Errorf("reading took %s", d)
	}
	if w := fmt.Sprint(table.Warnings()); !strings.Contains(w, "sizes of "+local+": no answer") || strings.Contains(w, remote) {
		t.Errorf("got warnings %s", w)
	}
	start = time.Now()
	expectCode(t, table, filepath.Join(remote, "x"), problem.VolumeNetwork)
	if d := time.Since(start); d < locateLimit || d > locateLimit+time.Second {
		t.Errorf("the lookup took %s", d)
	}
}

// silent mounts a FUSE file system whose program never answers.
func silent(t *testing.T, source, point, fsType string) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // ends all requests
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", f.Fd())
	if err := syscall.Mount(source, point, fsType, syscall.MS_NODEV|syscall.MS_NOSUID, options); err != nil {
		t.Fatal(err)
	}
}

// A lateProbe calls late before it asks a file system for the first time.
type lateProbe struct {
	host
	late func()
}

func (p lateProbe) FileSystem(point string, mount int) (Facts, error) {
	p.late()
	return p.host.FileSystem(point, mount)
}

// TestLiveServerComes mounts something that does not answer after the list of
// mounts was read, over what is about to be asked, and above it.
func TestLiveServerComes(t *testing.T) {
	t.Parallel() // it waits for seconds
	if !inNamespace(t) {
		return
	}
	for _, c := range []struct {
		where string        // it comes
		limit time.Duration // of the reading
	}{{"outer/inner", time.Second}, {"outer", answerLimit + time.Second}} {
		dir := scratch(t)
		point := filepath.Join(dir, "outer/inner")
		mountTmpfs(t, point)
		var once sync.Once
		roots := Host()
		roots.Probe = lateProbe{late: func() {
			once.Do(func() { silent(t, "server:/x", filepath.Join(dir, c.where), "fuse.sshfs") })
		}}
		start := time.Now()
		table, err := Read(t.Context(), roots)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > c.limit {
			t.Errorf("%s: reading took %s", c.where, d)
		}
		if w := fmt.Sprint(table.Warnings()); !strings.Contains(w, "sizes of "+point) {
			t.Errorf("%s: got warnings %s", c.where, w)
		}
		start = time.Now()
		expectCode(t, table, filepath.Join(point, "x"), problem.VolumeLost)
		if d := time.Since(start); d > locateLimit+time.Second {
			t.Errorf("%s: the lookup took %s", c.where, d)
		}
	}
}

// TestLiveChanges reads while mounts come and go: what stays must be there
// every time, once.
func TestLiveChanges(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := scratch(t)
	const stay = 300
	for i := range stay {
		mountTmpfs(t, filepath.Join(dir, "stay", fmt.Sprint(i)))
	}
	var stop atomic.Bool
	var changes atomic.Int64
	var busy sync.WaitGroup
	for i := range 2 {
		busy.Go(func() {
			for n := 0; !stop.Load(); n++ {
				p := filepath.Join(dir, "go", fmt.Sprint(i, n%20))
				if err := os.MkdirAll(p, 0o755); err != nil {
					t.Error(err)
					return
				}
				if syscall.Mount("x", p, "tmpfs", 0, "") != nil || syscall.Unmount(p, 0) != nil {
					t.Error("cannot mount or unmount")
					return
				}
				changes.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	unsettled := 0
	for range 50 {
		table := readLive(t)
		if n := len(table.Below(filepath.Join(dir, "stay"))); n != stay {
			t.Errorf("%d of %d mounts", n, stay)
		}
		if strings.Contains(fmt.Sprint(table.Warnings()), "kept changing") {
			unsettled++
		}
	}
	stop.Store(true)
	busy.Wait()
	t.Logf("%d changes, %d of 50 readings unsettled", changes.Load(), unsettled)
	if changes.Load() < 50 {
		t.Error("nothing changed meanwhile")
	}
}

// TestLiveManyOverlays reads 2,000 real overlay file systems, and says how
// long that takes.
func TestLiveManyOverlays(t *testing.T) {
	if testing.Short() {
		t.Skip("mounts 2,000 file systems; -short was given")
	}
	if !inNamespace(t) {
		return
	}
	dir := filepath.Join(scratch(t), "in memory")
	mountTmpfs(t, dir)
	for i := range 2000 {
		var d [4]string
		for j, n := range []string{"lower", "upper", "work", "merged"} {
			d[j] = makeDir(t, dir, fmt.Sprint(i), n)
		}
		if err := syscall.Mount("overlay", d[3], "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", d[0], d[1], d[2])); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	table := readLive(t)
	t.Logf("read %d volumes in %s", len(table.Volumes()), time.Since(start))
	if n := len(table.Below(dir)); n != 2000 {
		t.Errorf("got %d", n)
	}
	path := filepath.Join(dir, "1234/merged")
	if v := expect(t, table, path, table.Volumes()[len(table.Volumes())-2000+1234].ID, path, ".", ""); v.Kind != Stacked {
		t.Errorf("got %+v", v)
	}
}
