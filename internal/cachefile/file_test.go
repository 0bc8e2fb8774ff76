package cachefile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

const mib = 1 << 20

func at(dir string, l Limits) Placement { return Placement{Dir: dir, Limits: []Limits{l}} }

func create(t *testing.T, dir string, l Limits) *File {
	t.Helper()
	f, err := Create(at(dir, l), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// original is a file to be saved.
func original(t *testing.T, content []byte) int {
	t.Helper()
	name := t.TempDir() + "/original"
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// on runs a test on a scratch volume of each type.
func on(t *testing.T, size int64, test func(t *testing.T, fsType string, v *scratch.Volume)) {
	scratch.NeedRoot(t)
	for fsType, least := range map[string]int64{"ext4": 0, "xfs": 320 * mib, "btrfs": 128 * mib} {
		t.Run(fsType, func(t *testing.T) { test(t, fsType, scratch.New(t, fsType, max(size, least))) })
	}
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

func TestSave(t *testing.T) {
	content := random(3*mib + 77)
	from := original(t, content)
	f := create(t, t.TempDir(), Limits{Initial: mib, Maximum: 20 * mib})
	check := func(at, offset, n int64) {
		t.Helper()
		got := make([]byte, n)
		if read, err := f.ReadAt(got, at); err != nil || int64(read) != n || !bytes.Equal(got, content[offset:offset+n]) {
			t.Errorf("read %d of %d bytes at %d, %v", read, n, at, err)
		}
	}
	for _, c := range []struct{ offset, length, want int64 }{
		{0, 4096, 4096}, {100, 1, 1}, {3 * mib, 4096, 77}, {3*mib + 77, 4096, 0}, {10 * mib, 4096, 0}, {0, 0, 0}, {5, 3 * mib, 3 * mib}, {0, 10 * mib, 3*mib + 77},
	} {
		before := f.Stats().Used
		at, n, err := f.Save(t.Context(), from, c.offset, c.length)
		if err != nil || n != c.want || at%4096 != 0 {
			t.Fatalf("%+v: at %d, %d bytes, %v", c, at, n, err)
		}
		check(at, min(c.offset, int64(len(content))), n)
		if used := f.Stats().Used - before; used != roundUp(n) {
			t.Errorf("%+v: uses %d bytes", c, used)
		}
	}
	at, err := f.SaveBytes(context.Background(), content[9:1000])
	if err != nil {
		t.Fatal(err)
	}
	check(at, 9, 991)
	if s := f.Stats(); s.Saves != 9 || s.Maximum != 20*mib || s.Content != 4096+1+77+3*mib+3*mib+77+991 {
		t.Errorf("%+v", s)
	}

	// A file that cannot be read is no fault of the cache.
	before := f.Stats()
	if _, _, err := f.Save(t.Context(), -1, 0, 4096); !errors.Is(err, unix.EBADF) || problem.CodeOf(err) != problem.Uncatalogued {
		t.Errorf("a bad descriptor: %v", err)
	}
	if f.Err() != nil || f.Stats() != before {
		t.Errorf("a bad descriptor spoils it: %v %+v", f.Err(), f.Stats())
	}
	if _, _, err := f.Save(t.Context(), from, 0, -1); !errors.Is(err, unix.EINVAL) || f.Err() != nil {
		t.Errorf("a negative length: %v", err)
	}
}

func TestConcurrentSaves(t *testing.T) {
	content := random(8 * mib)
	from := original(t, content)
	f := create(t, t.TempDir(), Limits{Initial: mib, Maximum: 1 << 30})
	type saved struct{ at, offset, n int64 }
	var mu sync.Mutex
	var all []saved
	var savers sync.WaitGroup
	for i := range 8 {
		savers.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(i)))
			for range 60 {
				offset, length := r.Int64N(int64(len(content))), r.Int64N(mib)
				at, n, err := f.Save(t.Context(), from, offset, length)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, saved{at, offset, n})
				mu.Unlock()
			}
		})
	}
	savers.Wait()
	for _, s := range all {
		got := make([]byte, s.n)
		if _, err := f.ReadAt(got, s.at); err != nil || !bytes.Equal(got, content[s.offset:s.offset+s.n]) {
			t.Fatalf("%+v is not what was saved, %v", s, err)
		}
	}
}

// No two saves get the same place, and each takes no more than it needs.
func TestPlacesAreApart(t *testing.T) {
	f := create(t, t.TempDir(), Limits{Maximum: 1 << 40})
	const savers, saves = 8, 5000
	var all [savers][saves]int64
	var wait sync.WaitGroup
	for i := range savers {
		wait.Go(func() {
			for j := range saves {
				at, err := f.take(1)
				if err != nil {
					t.Error(err)
					return
				}
				all[i][j] = at
			}
		})
	}
	wait.Wait()
	seen := map[int64]bool{}
	for _, some := range all {
		for _, at := range some {
			if seen[at] || at%4096 != 0 || at >= savers*saves*4096 {
				t.Fatalf("%d is taken twice, or not the next", at)
			}
			seen[at] = true
		}
	}
}

// wantFull checks that a cache file refuses for ever, and keeps what it has.
func wantFull(t *testing.T, f *File, err error, code problem.Code, why string) {
	t.Helper()
	if problem.CodeOf(err) != code || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %v, want %s: %s", problem.CodeOf(err), err, code, why)
	}
	if _, again := f.SaveBytes(context.Background(), []byte{1}); again == nil || again.Error() != err.Error() || f.Err() == nil {
		t.Errorf("after %v comes %v", err, again)
	}
}

// fill saves megabytes until that fails.
func fill(f *File) (saved int, err error) {
	b := random(mib)
	for {
		if _, err := f.SaveBytes(context.Background(), b); err != nil {
			return saved, err
		}
		saved++
	}
}

func TestMaximum(t *testing.T) {
	f := create(t, t.TempDir(), Limits{Maximum: 5 * mib})
	n, err := fill(f)
	if n != 5 {
		t.Errorf("%d MiB were saved of 5", n)
	}
	wantFull(t, f, err, problem.CacheFull, "maximum of 5 MiB")
	if s := f.Stats(); s.Used != 5*mib {
		t.Errorf("%+v", s)
	}
	got := make([]byte, mib)
	if _, err := f.ReadAt(got, 4*mib); err != nil || !bytes.Equal(got, random(mib)) {
		t.Errorf("what was saved before cannot be read: %v", err)
	}
}

func TestRaise(t *testing.T) {
	for _, c := range []struct{ raised, want int64 }{{0, 5}, {4, 5}, {7, 7}, {100, 8}} {
		f := create(t, t.TempDir(), Limits{Maximum: 5 * mib, Raised: c.raised * mib})
		f.Raise(mib)
		f.Raise(-mib)
		f.Raise(2 * mib)
		if n, _ := fill(f); int64(n) != c.want || f.Stats().Maximum != c.want*mib {
			t.Errorf("%d MiB, to be raised to %d: %d MiB", 5, c.raised, n)
		}
	}
}

// A volume that runs full costs the snapshot, and nothing before that.
func TestVolumeFull(t *testing.T) {
	on(t, 64*mib, func(t *testing.T, fsType string, v *scratch.Volume) {
		f := create(t, v.Dir, Limits{Maximum: 1 << 40})
		n, err := fill(f)
		if n < 30 {
			t.Errorf("only %d MiB were saved", n)
		}
		wantFull(t, f, err, problem.CacheFull, "no space left")
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Room is left to others.
func TestRoomForOthers(t *testing.T) {
	on(t, 128*mib, func(t *testing.T, fsType string, v *scratch.Volume) {
		const keep = 30 * mib
		f := create(t, v.Dir, Limits{Maximum: 1 << 40, Keep: keep})
		_, err := fill(f)
		if fsType == "btrfs" { // counts late: only the end of the volume is sure
			wantFull(t, f, err, problem.CacheFull, "")
			return
		}
		wantFull(t, f, err, problem.CacheFull, "are left to others")
		if left := free(t, v.Dir); left < keep-2*lookEvery {
			t.Errorf("%d MiB are left, want %d", left/mib, keep/mib)
		}
	})
}

// The initial size is taken at once, and a volume without it refuses at once.
func TestInitial(t *testing.T) {
	on(t, 128*mib, func(t *testing.T, fsType string, v *scratch.Volume) {
		before := free(t, v.Dir)
		f := create(t, v.Dir, Limits{Initial: 20 * mib, Maximum: 1 << 40})
		if took := before - free(t, v.Dir); fsType != "btrfs" && (took < 20*mib || took > 25*mib) {
			t.Errorf("%d MiB are reserved, want 20", took/mib)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if _, err := Create(at(v.Dir, Limits{Initial: before + 20*mib, Maximum: 1 << 40}), 0); problem.CodeOf(err) != problem.CacheFull {
			t.Errorf("more than there is: %v", err)
		}
		if names, _ := os.ReadDir(v.Dir); len(names) > 1 { // lost+found
			t.Errorf("left: %v", names)
		}
	})
}

// A device that fails costs the snapshot.
func TestDeviceFails(t *testing.T) {
	scratch.NeedRoot(t)
	for fsType, size := range map[string]int64{"ext4": 64 * mib, "xfs": 320 * mib} {
		t.Run(fsType, func(t *testing.T) {
			v := scratch.New(t, fsType, size)
			f := create(t, v.Dir, Limits{Maximum: 1 << 40})
			if _, err := f.SaveBytes(context.Background(), random(mib)); err != nil {
				t.Fatal(err)
			}
			shutDown(t, v.Dir)
			if _, err := f.ReadAt(make([]byte, 10), 100*mib); err != nil && problem.CodeOf(err) != problem.CacheLost {
				t.Errorf("read: %v", err)
			}
			_, err := fill(f) // what comes before the failure is seen is in memory
			wantFull(t, f, err, problem.CacheLost, "input/output error")
			if _, err := Create(at(v.Dir, Limits{Initial: mib, Maximum: 1 << 40}), 0); problem.CodeOf(err) != problem.CacheLost {
				t.Errorf("create: %v", err)
			}
			f.Close()
		})
	}
}

// shutDown makes a file system fail as if its device did (FS_IOC_SHUTDOWN,
// _IOR('X', 125, __u32) in linux/fs.h; 2 is without a flush of the log).
func shutDown(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.IoctlSetPointerInt(int(d.Fd()), 0x8004587d, 2); err != nil {
		t.Fatal(err)
	}
}

func TestNoPlace(t *testing.T) {
	for _, dir := range []string{t.TempDir() + "/missing", "/proc/self", "/dev/null"} {
		_, err := Create(at(dir, Limits{Maximum: mib}), 0)
		if problem.CodeOf(err) != problem.CacheLost || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

const killedVariable = "STILLPOINT_CACHEFILE_KILLED"

// A process that is killed leaves nothing.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedVariable); dir != "" {
		f := create(t, dir, Limits{Initial: 10 * mib, Maximum: 1 << 40})
		for range 30 {
			if _, err := f.SaveBytes(context.Background(), random(mib)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		fmt.Println("saved")
		time.Sleep(time.Minute)
		return
	}
	scratch.NeedRoot(t)
	v := scratch.New(t, "ext4", 128*mib)
	before := free(t, v.Dir)
	c := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	c.Env = append(os.Environ(), killedVariable+"="+v.Dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 5)
	if _, err := out.Read(said); err != nil || string(said) != "saved" {
		t.Errorf("%q, %v", said, err)
	}
	if took := before - free(t, v.Dir); took < 20*mib {
		t.Errorf("only %d MiB are taken", took/mib)
	}
	if names, _ := os.ReadDir(v.Dir); len(names) > 1 {
		t.Errorf("the cache file has a name: %v", names)
	}
	c.Process.Kill()
	c.Wait()
	for end := time.Now().Add(10 * time.Second); free(t, v.Dir) < before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are left", before-free(t, v.Dir))
		}
	}
}

func BenchmarkSave(b *testing.B) {
	dir := b.TempDir()
	name := dir + "/original"
	if err := os.WriteFile(name, make([]byte, 64*mib), 0o600); err != nil {
		b.Fatal(err)
	}
	from, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	for _, size := range []int64{4096, 64 << 10, mib, 16 * mib} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			f, err := Create(at(dir, Limits{Initial: Least, Maximum: 1 << 40}), 0)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.SetBytes(size)
			b.ReportAllocs()
			for i := range b.N {
				if _, _, err := f.Save(b.Context(), int(from.Fd()), int64(i)*size%(48*mib), size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
