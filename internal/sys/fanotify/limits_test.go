package fanotify

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// held lets n goroutines wait in a write, and returns their ends.
func held(t *testing.T, files []*os.File) <-chan error {
	done := make(chan error, len(files))
	for _, f := range files {
		go func() {
			_, err := f.WriteAt([]byte("x"), 0)
			done <- err
		}()
	}
	return done
}

func ends(t *testing.T, done <-chan error, n int) {
	t.Helper()
	for range n {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("a writer that was let go: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a writer still waits")
		}
	}
}

func createMany(t *testing.T, dir string, n int) []*os.File {
	files := make([]*os.File, n)
	for i := range files {
		files[i] = create(t, dir+"/file"+string(rune('a'+i)), 4096)
	}
	return files
}

// Close lets everyone go: who was read, who is in the queue; and ends all reads.
func TestClose(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		files := createMany(t, dir, 8)
		must(t, p.Arm(fs))
		done := held(t, files)
		b := NewBuffer(2)
		events, err := p.Read(b)
		must(t, err)
		time.Sleep(20 * time.Millisecond)
		var readers sync.WaitGroup
		other := newGroup(t) // nothing ever comes here
		for range 4 {
			readers.Go(func() {
				if _, err := other.Read(NewBuffer(1)); !errors.Is(err, os.ErrClosed) {
					t.Errorf("read: %v", err)
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		began := time.Now()
		must(t, other.Close())
		readers.Wait()
		must(t, p.Close())
		ends(t, done, len(files))
		t.Logf("let go after %v", time.Since(began))
		must(t, p.Close())
		for _, e := range events {
			if err := p.Allow(e); !errors.Is(err, os.ErrClosed) {
				t.Errorf("allow: %v", err)
			}
			if _, err := unix.FcntlInt(uintptr(e.FD), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("the event's descriptor is open: %v", err)
			}
		}
		for what, err := range map[string]error{"arm": p.Arm(fs), "ignore": p.Ignore(3), "flush": p.HeedAll()} {
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// Readers, answers and Close at the same time: for the race detector, and to
// see that no descriptor number is used after it was closed.
func TestCloseUnderLoad(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		for range 20 {
			p := newGroup(t)
			must(t, p.Watch(fs))
			files := createMany(t, dir, 4)
			must(t, p.Arm(fs))
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					b := NewBuffer(2)
					for {
						events, err := p.Read(b)
						if err != nil {
							if !errors.Is(err, os.ErrClosed) {
								t.Errorf("read: %v", err)
							}
							return
						}
						for _, e := range events {
							_ = p.Allow(e)
						}
					}
				})
			}
			stop := time.Now().Add(5 * time.Millisecond)
			for _, f := range files {
				all.Go(func() {
					for time.Now().Before(stop) {
						if _, err := f.WriteAt([]byte("x"), 0); err != nil {
							t.Errorf("write: %v", err)
						}
					}
				})
			}
			time.Sleep(3 * time.Millisecond)
			must(t, p.Close())
			all.Wait()
		}
	})
}

// Whoever is killed while waiting is gone at once, and its answer harmless.
func TestKilledWaiter(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		must(t, os.WriteFile(dir+"/file", make([]byte, 4096), 0o600))
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		must(t, p.Arm(fs))
		cat := exec.Command("cat", dir+"/file")
		must(t, cat.Start())
		b := NewBuffer(1)
		events, err := p.Read(b)
		must(t, err)
		must(t, cat.Process.Kill())
		_ = cat.Wait()
		if len(events) != 1 || int(events[0].TID) != cat.Process.Pid {
			t.Errorf("%+v of process %d", events, cat.Process.Pid)
		}
		must(t, p.Allow(events[0]))
	})
}

// No more events are read than there is room for descriptors; the rest waits.
func TestRoom(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		p.room = newRoom(26)
		l := listen(t, p, 3)
		l.setHold(true)
		must(t, p.Watch(fs))
		files := createMany(t, dir, 40)
		must(t, p.Arm(fs))
		done := held(t, files)
		time.Sleep(300 * time.Millisecond)
		// Each of the readers has claimed what it might get.
		got := l.waitHeld(t, 1)
		if len(got) < 10 || len(got) > 26 {
			t.Errorf("%d events read, for 26 descriptors", len(got))
		}
		if !p.Short() {
			t.Error("there is room")
		}
		l.setHold(false)
		l.mu.Lock()
		l.held = nil
		if l.short == 0 {
			t.Error("nobody was told")
		}
		l.mu.Unlock()
		for _, e := range got {
			must(t, p.Allow(e))
		}
		ends(t, done, len(files))
		room := func() int {
			p.room.mu.Lock()
			defer p.room.mu.Unlock()
			return p.room.free
		}
		for end := time.Now().Add(5 * time.Second); room() != 26; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("room for %d in the end", room())
				break
			}
		}
	})
}

// The room is that of all groups together: what one has taken, the other cannot
// have.
func TestOneRoom(t *testing.T) {
	scratch.NeedRoot(t)
	p, q := newGroup(t), newGroup(t)
	p.room.mu.Lock()
	free := p.room.free // other tests may have left something unanswered
	p.room.mu.Unlock()
	must(t, p.room.take(free-1, p.ended))
	if !q.Short() {
		t.Error("the other group has room")
	}
	if err := q.room.take(2, q.ended); !errors.Is(err, ErrNoRoom) {
		t.Errorf("the other group: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { p.room.give(free - 1) })
	must(t, q.room.take(2, q.ended))
	q.room.give(2)
	if p.Short() || q.Short() {
		t.Error("there is no room in the end")
	}
}

// What happens without that: the kernel denies, and we hear of it.
func TestDenied(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		files := createMany(t, dir, 2)
		must(t, p.Arm(fs))
		var was unix.Rlimit
		must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
		runtime.GC() // closes what earlier tests have dropped
		done := held(t, files)
		awaitUnread(t, p, len(files))
		// Room for one more descriptor, and no gap below.
		must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: was.Max}))
		var taken []int
		for {
			fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				break
			}
			taken = append(taken, fd)
		}
		unix.Close(taken[len(taken)-1])
		events, err := p.Read(NewBuffer(4))
		must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
		for _, fd := range taken[:len(taken)-1] {
			unix.Close(fd)
		}
		var denied *Denied
		if !errors.As(err, &denied) || !errors.Is(err, unix.EMFILE) || len(events) != 1 {
			t.Errorf("%d events, %v", len(events), err)
		}
		for _, e := range events {
			must(t, p.Allow(e))
		}
		var failures []error
		for range files {
			select {
			case err := <-done:
				if err != nil {
					failures = append(failures, err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("a writer still waits")
			}
		}
		if len(failures) != 1 || !errors.Is(failures[0], os.ErrPermission) {
			t.Errorf("writers failed with %v", failures)
		}
	})
}

// Another process can go on with the group: nobody is let go meanwhile, and it
// can answer what the first had read.
func TestAdopt(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		files := createMany(t, dir, 2)
		must(t, p.Arm(fs))
		dup, err := p.File()
		must(t, err)
		defer dup.Close()
		done := held(t, files[:1])
		events, err := p.Read(NewBuffer(1))
		must(t, err)
		must(t, p.Close())
		for _, e := range events {
			unix.Close(int(e.FD))
		}
		done2 := held(t, files[1:]) // while nobody reads
		select {
		case err := <-done:
			t.Fatalf("it was let go: %v", err)
		case err := <-done2:
			t.Fatalf("it was let go: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		q, err := Adopt(dup)
		must(t, err)
		time.AfterFunc(20*time.Second, func() { q.Close() })
		defer q.Close()
		dup.Close()
		began := time.Now()
		must(t, q.AllowLost(20000))
		t.Logf("20,000 numbers answered in %v", time.Since(began))
		ends(t, done, 1)
		events, err = q.Read(NewBuffer(1))
		must(t, err)
		for _, e := range events {
			must(t, q.Allow(e))
		}
		ends(t, done2, 1)
	})
}

// The work per event allocates nothing.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("skipped: the race detector allocates")
	}
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		f := create(t, dir+"/file", 4096)
		must(t, p.Arm(fs))
		fd := int(f.Fd())
		var stop sync.WaitGroup
		quit := make(chan struct{})
		stop.Go(func() {
			runtime.LockOSThread()
			b := []byte("x")
			for {
				select {
				case <-quit:
					return
				default:
					_, _ = syscall.Pwrite(fd, b, 0)
				}
			}
		})
		b := NewBuffer(4)
		n := testing.AllocsPerRun(200, func() {
			events, err := p.Read(b)
			must(t, err)
			for _, e := range events {
				must(t, p.Allow(e))
			}
		})
		close(quit)
		p.Close()
		stop.Wait()
		if n != 0 {
			t.Errorf("%v allocations per event", n)
		}
	})
}
