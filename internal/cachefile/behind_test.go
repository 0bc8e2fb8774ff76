package cachefile

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
)

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to this: " + what)
		}
	}
}

func pause(t *testing.T, f *File, hasty bool) (resume func()) {
	t.Helper()
	resume, err := f.Pause(t.Context(), hasty)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(resume)
	return resume
}

func save(t *testing.T, f *File, p []byte) int64 {
	t.Helper()
	at, err := f.SaveBytes(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// written is how much is in the file.
func written(t *testing.T, f *File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Size
}

// A write that fails after its data had been taken makes the file lost at once:
// nobody has to save anything more to hear of it, and what was not written is
// never read, neither as zeros nor from memory. Its blocks are given back.
func TestLateFailure(t *testing.T) {
	scratch.NeedRoot(t)
	for name, c := range map[string]struct {
		fail func(t *testing.T, v *scratch.Volume) // from now on
		save int
		code problem.Code
	}{
		"device": {func(t *testing.T, v *scratch.Volume) { shutDown(t, v.Dir) }, 1, problem.CacheLost},
		"limit":  {func(t *testing.T, _ *scratch.Volume) { limitFiles(t, mib) }, 3, problem.CacheFull},
		"full":   {func(*testing.T, *scratch.Volume) {}, 100, problem.CacheFull},
	} {
		t.Run(name, func(t *testing.T) {
			v := scratch.New(t, "ext4", 64*mib)
			before := free(t, v.Dir)
			f := create(t, v.Dir, Limits{Maximum: 1 << 40})
			early := save(t, f, random(mib))
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			resume := pause(t, f, false)
			var places []int64
			for range c.save {
				places = append(places, save(t, f, random(mib)))
			}
			if f.Err() != nil {
				t.Fatalf("before it is written: %v", f.Err())
			}
			c.fail(t, v)
			resume()
			waitFor(t, "it is lost", func() bool { return f.Err() != nil })
			if code := problem.CodeOf(f.Err()); code != c.code {
				t.Errorf("%v has the code %s, want %s", f.Err(), code, c.code)
			}
			got := make([]byte, mib)
			for _, at := range append(places, early) {
				waitFor(t, "it cannot be read", func() bool {
					n, err := f.ReadAt(got, at)
					if err == nil && !bytes.Equal(got[:n], random(mib)) {
						t.Fatalf("reads what was not saved at %d", at)
					}
					return err != nil
				})
			}
			if _, err := f.SaveBytes(t.Context(), []byte{1}); problem.CodeOf(err) != c.code {
				t.Errorf("a later save: %v", err)
			}
			if name == "full" {
				waitFor(t, "its blocks are given back", func() bool { return free(t, v.Dir) >= before-mib })
			}
		})
	}
}

// limitFiles lets this process write no file beyond a size.
func limitFiles(t *testing.T, size uint64) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	})
}

// During a pause nothing is written, and what is saved can be read.
func TestPause(t *testing.T) {
	f := create(t, t.TempDir(), Limits{Maximum: 1 << 30})
	content := random(2*mib + 4097)
	first := save(t, f, content)
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	resume := pause(t, f, false)
	also := pause(t, f, true) // of somebody else
	before := written(t, f)
	second := save(t, f, content)
	short := save(t, f, content[:5])
	check := func() {
		t.Helper()
		got := make([]byte, len(content))
		for _, at := range []int64{first, second} {
			if n, err := f.ReadAt(got, at); n != len(content) || err != nil || !bytes.Equal(got, content) {
				t.Errorf("read %d bytes at %d: %v", n, at, err)
			}
		}
		if n, err := f.ReadAt(got[:5], short); n != 5 || err != nil || !bytes.Equal(got[:5], content[:5]) {
			t.Errorf("read %d bytes at %d: %v", n, short, err)
		}
	}
	check()
	resume()
	resume()                          // once more changes nothing
	time.Sleep(20 * time.Millisecond) // only to catch it at work
	if now := written(t, f); now != before {
		t.Errorf("%d bytes were written during the pause", now-before)
	}
	check()
	also()
	if err := f.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := written(t, f); now < before+int64(len(content)) || f.behind.waiting() != 0 || len(f.behind.slots) != 0 {
		t.Errorf("after the pause the file has %d bytes, %d wait", now, f.behind.waiting())
	}
	check()
}

// When the memory is full a save waits for room, as long as its context lets
// it, and goes on as soon as there is some.
func TestMemoryFull(t *testing.T) {
	const memory = 8 * mib
	f := create(t, t.TempDir(), Limits{Maximum: 1 << 30, Memory: memory})
	resume := pause(t, f, false)
	for range memory / mib {
		save(t, f, random(mib))
	}
	if held := f.behind.waiting(); held != memory {
		t.Errorf("%d bytes wait in memory", held)
	}
	used := f.Stats()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.SaveBytes(ctx, random(mib)); !errors.Is(err, context.DeadlineExceeded) || f.Err() != nil {
		t.Errorf("without room: %v, %v", err, f.Err())
	}
	if f.Stats() != used {
		t.Errorf("a save that waited in vain takes room: %+v, before %+v", f.Stats(), used)
	}
	saved := make(chan int64)
	go func() {
		at, err := f.SaveBytes(t.Context(), random(mib))
		if err != nil {
			t.Error(err)
		}
		saved <- at
	}()
	resume()
	got := make([]byte, mib)
	if _, err := f.ReadAt(got, <-saved); err != nil || !bytes.Equal(got, random(mib)) {
		t.Errorf("what waited for room: %v", err)
	}
}

// Who holds others up does not wait for room: the file is lost.
func TestHastyPause(t *testing.T) {
	f := create(t, t.TempDir(), Limits{Maximum: 1 << 30, Memory: 2 * mib})
	resume := pause(t, f, true)
	for range 2 {
		save(t, f, random(mib))
	}
	_, err := f.SaveBytes(t.Context(), []byte{1})
	wantFull(t, f, err, problem.CacheFull, "stands still")
	resume()
}

// frozen freezes a volume until thaw is called, or the test ends.
func frozen(t *testing.T, v *scratch.Volume) (thaw func()) {
	t.Helper()
	root, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := freeze.Freeze(root); err != nil {
		t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() {
		if err := freeze.Thaw(root); err != nil {
			t.Error(err)
		}
		root.Close()
	})
	t.Cleanup(thaw)
	return thaw
}

// While the volume is frozen nobody waits for it.
func TestFrozenVolume(t *testing.T) {
	scratch.NeedRoot(t)
	for fsType, size := range map[string]int64{"ext4": 128 * mib, "xfs": 320 * mib} {
		t.Run(fsType, func(t *testing.T) {
			v := scratch.New(t, fsType, size)
			f := create(t, v.Dir, Limits{Initial: mib, Maximum: 1 << 30})
			resume := pause(t, f, true)
			thaw := frozen(t, v)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for range 64 {
					if _, err := f.SaveBytes(t.Context(), random(mib)); err != nil {
						t.Error(err)
						return
					}
				}
				got := make([]byte, mib)
				if _, err := f.ReadAt(got, 63*mib); err != nil || !bytes.Equal(got, random(mib)) {
					t.Errorf("read: %v", err)
				}
			}()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Error("somebody waits for a frozen volume")
			}
			thaw()
			<-ended
			resume()
			if err := f.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Others fill the volume: before one of their writes fails the file is lost and
// has given its blocks back, so that they can have these, too.
func TestGivesWay(t *testing.T) {
	scratch.NeedRoot(t)
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			v := scratch.New(t, fsType, 320*mib)
			f := create(t, v.Dir, Limits{Initial: mib, Maximum: 1 << 30, Keep: 40 * mib, Floor: 20 * mib})
			for range 100 {
				save(t, f, random(mib))
			}
			if err := f.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			left := free(t, v.Dir)
			other, err := os.Create(v.Dir + "/other")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			for wrote := int64(0); wrote < left+60*mib; wrote += mib {
				// How fast it looks is no matter of this test, on a busy host.
				if free(t, v.Dir) < 10*mib {
					waitFor(t, "it gives its blocks back", func() bool { return free(t, v.Dir) > 60*mib })
				}
				if _, err := other.Write(random(mib)); err != nil {
					t.Fatalf("a write failed after %d MiB, %d MiB were free: %v; the cache file says %v", wrote>>20, left>>20, err, f.Err())
				}
				if err := unix.Fdatasync(int(other.Fd())); err != nil {
					t.Fatal(err)
				}
			}
			wantFull(t, f, f.Err(), problem.CacheFull, "ended itself to make room")
			if used := f.Stats().Used; used != 100*mib {
				t.Errorf("the high-water mark is %d MiB", used>>20)
			}
			if _, err := f.ReadAt(make([]byte, mib), 0); problem.CodeOf(err) != problem.CacheFull {
				t.Errorf("it can be read: %v", err)
			}
		})
	}
}

// The thin pool below gets short, which no file system tells: the file ends itself.
func TestPoolGetsShort(t *testing.T) {
	var is atomic.Bool
	was := short
	short = func(pools []string) string {
		if is.Load() && slices.Equal(pools, []string{"253:7"}) {
			return "it is nearly full"
		}
		return ""
	}
	t.Cleanup(func() { short = was }) // after the file is closed
	f := create(t, t.TempDir(), Limits{Initial: mib, Maximum: 1 << 30, Pools: []string{"253:7"}})
	save(t, f, random(mib))
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	is.Store(true)
	waitFor(t, "it ends itself", func() bool { return f.Err() != nil })
	wantFull(t, f, f.Err(), problem.CacheFull, "it is nearly full")
}

// Many save and read at once, while pauses come and go: everybody reads what was
// saved, from memory or from the file.
func TestManyBehind(t *testing.T) {
	content := random(4 * mib)
	from := original(t, content)
	f := create(t, t.TempDir(), Limits{Initial: mib, Maximum: 4 << 30})
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				resume, err := f.Pause(t.Context(), false)
				if err != nil {
					t.Error(err)
					return
				}
				resume()
			}
		}
	})
	var savers sync.WaitGroup
	for i := range 6 {
		savers.Go(func() {
			r := rand.New(rand.NewPCG(11, uint64(i)))
			type saved struct{ at, offset, n int64 }
			var mine []saved
			for range 150 {
				offset := r.Int64N(int64(len(content)))
				length := int64(1) << r.Int64N(20)
				at, n, err := f.Save(t.Context(), from, offset, length)
				if err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, saved{at, offset, n})
				s := mine[r.IntN(len(mine))]
				got := make([]byte, s.n)
				if _, err := f.ReadAt(got, s.at); err != nil || !bytes.Equal(got, content[s.offset:s.offset+s.n]) {
					t.Errorf("%+v is not what was saved, %v", s, err)
					return
				}
			}
		})
	}
	savers.Wait()
	close(stop)
	others.Wait()
}
