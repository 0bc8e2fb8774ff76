package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/fanotify"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// asked is what one event was about, and what its cause was taken for.
type asked struct {
	event fanotify.Event
	call  Call
	doing Doing
	took  time.Duration
}

// watchVolume answers the events of a volume after asking what caused them.
func watchVolume(t *testing.T, dir string) (take func() []asked) {
	t.Helper()
	root, err := os.Open(dir)
	must(t, err)
	p, err := fanotify.Open()
	must(t, err)
	late := time.AfterFunc(time.Minute, func() { p.Close() })
	must(t, p.Watch(root))
	must(t, p.Arm(root))
	var mu sync.Mutex
	var seen []asked
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			b := fanotify.NewBuffer(2)
			for {
				events, err := p.Read(b)
				if err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Errorf("read: %v", err)
					}
					return
				}
				for _, e := range events {
					var st unix.Stat_t
					_ = unix.Fstat(int(e.FD), &st)
					began := time.Now()
					c, _ := CallOf(int(e.TID))
					q := Question{e.Kind == fanotify.OpenFile, e.Offset, e.Count, st.Dev, st.Ino}
					doing, err := DoingOf(int(e.TID), q)
					// It got no processor to go to sleep on: a busy machine.
					for try := 0; err == ErrRunning && try < 100; try++ {
						if doing != Unknown {
							t.Errorf("a running thread %v", doing)
						}
						doing, err = DoingOf(int(e.TID), q)
					}
					took := time.Since(began)
					if err != nil {
						t.Errorf("event %+v: %v", e, err)
					}
					mu.Lock()
					seen = append(seen, asked{e, c, doing, took})
					mu.Unlock()
					_ = p.Allow(e)
				}
			}
		})
	}
	t.Cleanup(func() {
		late.Stop()
		p.Close()
		all.Wait()
		root.Close()
	})
	return func() []asked {
		mu.Lock()
		defer mu.Unlock()
		s := seen
		seen = nil
		return s
	}
}

func onVolumes(t *testing.T, f func(t *testing.T, dir string)) {
	for kind, size := range map[string]int64{"ext4": 128 * scratch.MiB, "xfs": 320 * scratch.MiB} {
		t.Run(kind, func(t *testing.T) { f(t, scratch.New(t, kind, size).Dir) })
	}
}

// What the kernel really shows for real calls.
func TestDoingOf(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		take := watchVolume(t, dir)
		must(t, os.WriteFile(dir+"/file", make([]byte, 64<<10), 0o600))
		must(t, os.WriteFile(dir+"/other", make([]byte, 64<<10), 0o600))
		open := func(path string, flags int) int {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
			must(t, err)
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}
		fd, ro, other := open(dir+"/file", unix.O_RDWR), open(dir+"/file", unix.O_RDONLY), open(dir+"/other", unix.O_RDWR)
		pipe := make([]int, 2)
		must(t, unix.Pipe2(pipe, unix.O_CLOEXEC))
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		b := make([]byte, 5000)
		mapped := func(fd, length, prot, flags int) error {
			m, err := unix.Mmap(fd, 4096, length, prot, flags)
			if err == nil {
				err = unix.Munmap(m)
			}
			return err
		}
		take()
		for _, c := range []struct {
			what string
			want []Doing
			f    func() error
		}{
			{"read", []Doing{Reads}, func() error { _, err := unix.Read(fd, b[:10]); return err }},
			{"read across pages", []Doing{Reads}, func() error { _, err := unix.Read(ro, b); return err }},
			{"read at the end", []Doing{Reads}, func() error { _, err := unix.Pread(fd, b, 1<<20); return err }},
			{"pread", []Doing{Reads}, func() error { _, err := unix.Pread(fd, b, 4095); return err }},
			{"preadv", []Doing{Reads}, func() error { _, err := unix.Preadv(fd, [][]byte{b[:1], b}, 8000); return err }},
			{"preadv2", []Doing{Reads}, func() error { _, err := unix.Preadv2(fd, [][]byte{b[:1], b}, 8000, 0); return err }},
			{"readv", []Doing{Reads}, func() error { _, err := unix.Readv(fd, [][]byte{b[:1], b}); return err }},
			{"write", []Doing{Writes}, func() error { _, err := unix.Write(fd, b); return err }},
			{"pwrite", []Doing{Writes}, func() error { _, err := unix.Pwrite(fd, b, 1); return err }},
			{"pwritev2", []Doing{Writes}, func() error { _, err := unix.Pwritev2(fd, [][]byte{b}, 1, 0); return err }},
			{"ftruncate", []Doing{WritesToEnd}, func() error { return unix.Ftruncate(fd, 60000) }},
			{"truncate", []Doing{WritesToEnd}, func() error { return unix.Truncate(dir+"/file", 64<<10) }},
			{"punch", []Doing{Writes}, func() error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
			}},
			{"collapse", []Doing{WritesToEnd}, func() error { return unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 4096, 4096) }},
			{"insert", []Doing{WritesToEnd}, func() error { return unix.Fallocate(fd, unix.FALLOC_FL_INSERT_RANGE, 4096, 4096) }},
			{"map private", []Doing{MapsPrivate}, func() error { return mapped(fd, 5000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE) }},
			{"map shared", []Doing{MapsShared}, func() error { return mapped(fd, 5000, unix.PROT_READ, unix.MAP_SHARED) }},
			{"map read-only", []Doing{MapsReadOnly}, func() error { return mapped(ro, 4096, unix.PROT_READ, unix.MAP_SHARED) }},
			{"sendfile out", []Doing{Reads}, func() error { _, err := unix.Sendfile(pipe[1], ro, new(int64), 100); return err }},
			{"splice in", []Doing{Writes}, func() error { _, err := unix.Splice(pipe[0], nil, fd, new(int64), 100, 0); return err }},
			{"copy", []Doing{Reads, Writes}, func() error {
				_, err := unix.CopyFileRange(ro, new(int64), other, new(int64), 8192, 0)
				return err
			}},
			{"open", []Doing{Opens}, func() error { unix.Close(open(dir+"/file", unix.O_RDWR)); return nil }},
			{"open truncating", []Doing{Truncates}, func() error { unix.Close(open(dir+"/file", unix.O_RDONLY|unix.O_TRUNC)); return nil }},
			{"openat2", []Doing{Opens}, func() error {
				h, err := unix.Openat2(unix.AT_FDCWD, dir+"/file", &unix.OpenHow{Flags: unix.O_RDWR})
				unix.Close(h)
				return err
			}},
			{"openat2 truncating", []Doing{Truncates}, func() error {
				h, err := unix.Openat2(unix.AT_FDCWD, dir+"/file", &unix.OpenHow{Flags: unix.O_RDWR | unix.O_TRUNC})
				unix.Close(h)
				return err
			}},
		} {
			if err := c.f(); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			var got []Doing
			for _, a := range take() {
				got = append(got, a.doing)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s: taken for %v, want %v", c.what, got, c.want)
			}
		}
	})
}

// A program that is executed is only read.
func TestExecOnVolume(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		program, err := os.ReadFile("/bin/true")
		must(t, err)
		must(t, os.WriteFile(dir+"/true", program, 0o700))
		take := watchVolume(t, dir)
		must(t, exec.Command(dir+"/true").Run())
		events := take()
		for _, a := range events {
			if a.doing != Reads && a.doing != Opens && a.doing != MapsPrivate {
				t.Errorf("%+v", a)
			}
		}
		if len(events) < 3 {
			t.Errorf("only %+v", events)
		}
	})
}

// Reads and writes in quick succession by several threads are never mistaken
// for one another, also while a thread is still on its way to sleep.
func TestDoingUnderLoad(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		take := watchVolume(t, dir)
		must(t, os.WriteFile(dir+"/file", make([]byte, 64<<10), 0o600))
		take()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				fd, err := unix.Open(dir+"/file", unix.O_RDWR|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				b := make([]byte, 100)
				for range 1000 {
					_, _ = unix.Pwrite(fd, b, 4096) // writes to the second page, reads from the others
					_, _ = unix.Pread(fd, b, 8192)
					_, _ = unix.Seek(fd, 4096, 0)
					_, _ = unix.Write(fd, b)
					_, _ = unix.Seek(fd, 0, 0)
					_, _ = unix.Read(fd, b)
				}
			})
		}
		all.Wait()
		events := take()
		wrong := 0
		var sum time.Duration
		for _, a := range events {
			want := Reads
			if a.event.Offset == 4096 {
				want = Writes
			}
			if a.event.Kind == fanotify.OpenFile {
				want = Opens
			}
			if a.doing != want {
				wrong++
			}
			sum += a.took
		}
		if len(events) < 12000 || wrong > 0 {
			t.Errorf("%d of %d events mistaken", wrong, len(events))
		}
		t.Logf("%d events, %v each to find out", len(events), sum/time.Duration(len(events)))
	})
}

// spin starts a process that never leaves user space.
func spin(t *testing.T) int {
	c := exec.Command("sh", "-c", "echo; while :; do :; done")
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	return c.Process.Pid
}

// awaitCall waits until a thread waits in a call.
func awaitCall(t *testing.T, tid int, number int64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := callOf(tid)
		if err == nil && c.Number == number {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the thread is in %+v, %v", c, err)
		}
	}
}

func TestCallOf(t *testing.T) {
	pipe := make([]int, 2)
	must(t, unix.Pipe2(pipe, unix.O_CLOEXEC))
	tid := make(chan int)
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		_, _ = unix.Read(pipe[0], make([]byte, 77))
	})
	reader := <-tid
	awaitCall(t, reader, sysRead)
	c, err := CallOf(reader)
	if err != nil || c.Number != sysRead || c.Args[0] != uint64(pipe[0]) || c.Args[2] != 77 || c.abi() != nativeABI {
		t.Errorf("a reader: %+v, %v", c, err)
	}
	f, err := FileOf(reader, pipe[1])
	if err != nil || f.Mode&unix.S_IFMT != unix.S_IFIFO || f.Regular() {
		t.Errorf("its pipe: %+v, %v", f, err)
	}
	if flags, err := FlagsOf(reader, pipe[1]); err != nil || flags&unix.O_ACCMODE != unix.O_WRONLY {
		t.Errorf("its pipe: flags %o, %v", flags, err)
	}
	if _, err := FlagsOf(reader, 9999); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no descriptor: %v", err)
	}
	if _, err := FileOf(reader, 9999); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no descriptor: %v", err)
	}
	unix.Close(pipe[1])
	done.Wait()
	unix.Close(pipe[0])

	spinner := spin(t)
	began := time.Now()
	if c, err := CallOf(spinner); err != ErrRunning || c.Number != -1 {
		t.Errorf("a spinning thread: %+v, %v", c, err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}

	gone := exec.Command("true")
	must(t, gone.Run())
	if c, err := CallOf(gone.Process.Pid); err == nil || c.Number != -1 {
		t.Errorf("a process that is gone: %+v, %v", c, err)
	}
	if c, err := CallOf(2); err == nil && c.abi() != unknownABI { // kthreadd
		t.Errorf("a thread of the kernel: %+v", c)
	}
}
