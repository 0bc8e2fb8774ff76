package fanotify

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

var sizes = map[string]int64{"ext4": 128 * scratch.MiB, "xfs": 320 * scratch.MiB}

// onVolumes runs a test on a scratch volume of each kind.
func onVolumes(t *testing.T, f func(t *testing.T, dir string)) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			f(t, scratch.New(t, kind, sizes[kind]).Dir)
		})
	}
}

// openDir opens the root of a volume.
func openDir(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// newGroup makes a group that lets everyone go when the test ends, and also
// when it hangs.
func newGroup(t testing.TB) *Permission {
	t.Helper()
	scratch.NeedRoot(t)
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { p.Close() })
	t.Cleanup(func() {
		if !late.Stop() {
			t.Error("the test took too long; the group was closed")
		}
		p.Close()
	})
	return p
}

// A listener answers the events of a group, and notes them.
type listener struct {
	p     *Permission
	mu    sync.Mutex
	seen  []Event
	held  []Event
	hold  bool
	short int         // how often there was no room
	what  func(Event) // called before the answer
}

func listen(t testing.TB, p *Permission, readers int) *listener {
	l := &listener{p: p}
	var all sync.WaitGroup
	for range readers {
		all.Go(func() { l.run(t) })
	}
	t.Cleanup(func() {
		p.Close()
		all.Wait()
		for _, e := range l.held {
			unix.Close(int(e.FD))
		}
	})
	return l
}

func (l *listener) run(t testing.TB) {
	b := NewBuffer(4)
	for {
		events, err := l.p.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if errors.Is(err, ErrNoRoom) {
			l.mu.Lock()
			l.short++
			l.mu.Unlock()
			continue
		}
		if err != nil {
			t.Errorf("read: %v", err)
		}
		for _, e := range events {
			l.mu.Lock()
			l.seen = append(l.seen, e)
			hold, what := l.hold, l.what
			if hold {
				l.held = append(l.held, e)
			}
			l.mu.Unlock()
			if hold {
				continue
			}
			if what != nil {
				what(e)
			}
			if err := l.p.Allow(e); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Errorf("allow: %v", err)
			}
		}
	}
}

// take returns the events since the last take, in words.
func (l *listener) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var words []string
	for _, e := range l.seen {
		words = append(words, inWords(e))
	}
	l.seen = nil
	return strings.Join(words, " ")
}

func inWords(e Event) string {
	if e.Kind == OpenFile {
		return "open"
	}
	return fmt.Sprintf("%d+%d", e.Offset, e.Count)
}

// waitHeld waits until n events are held.
func (l *listener) waitHeld(t testing.TB, n int) []Event {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		held := slices.Clone(l.held)
		l.mu.Unlock()
		if len(held) >= n {
			return held
		}
		if time.Now().After(end) {
			t.Fatalf("%d events held, want %d", len(held), n)
		}
	}
}

func (l *listener) setHold(hold bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = hold
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, path string, size int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteAt(make([]byte, size), 0)
	must(t, err)
	return f
}

func TestAble(t *testing.T) {
	scratch.NeedRoot(t)
	if err := Able(); err != nil {
		t.Errorf("this kernel: %v", err)
	}
	memory := openDir(t, "/dev/shm")
	if err := AbleOn(memory); !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "ext4, XFS") {
		t.Errorf("on tmpfs: %v", err)
	}
	onVolumes(t, func(t *testing.T, dir string) {
		if err := AbleOn(openDir(t, dir)); err != nil {
			t.Error(err)
		}
	})
}

// The life of a watch: what is older than it has no events, what is younger
// has them while it is armed.
func TestArm(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		old := create(t, dir+"/old", 8192)
		fs := openDir(t, dir)
		p := newGroup(t)
		l := listen(t, p, 2)
		step := func(what, want string, f func() error) {
			t.Helper()
			must(t, f())
			if got := l.take(); got != want {
				t.Errorf("%s: events %q, want %q", what, got, want)
			}
		}
		write := func(f *os.File) func() error {
			return func() error { _, err := f.WriteAt([]byte("x"), 4100); return err }
		}
		must(t, p.Watch(fs))
		must(t, p.Watch(fs)) // harmless
		file := create(t, dir+"/file", 8192)
		step("idle", "", write(file))
		step("idle read", "", func() error { _, err := file.ReadAt(make([]byte, 10), 0); return err })
		step("idle open", "", func() error { _, err := os.ReadFile(dir + "/file"); return err })
		must(t, p.Arm(fs))
		step("armed", "4096+4096", write(file))
		step("older than the watch", "", write(old))
		step("old truncate", "0+4096", func() error { return old.Truncate(100) })
		step("open", "open", func() error {
			f, err := os.OpenFile(dir+"/old", os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			return err
		})
		second := newGroup(t)
		l2 := listen(t, second, 1)
		must(t, second.Watch(fs))
		must(t, second.Arm(fs))
		step("two groups", "4096+4096", write(file))
		if got := l2.take(); got != "4096+4096" {
			t.Errorf("the second group saw %q", got)
		}
		must(t, second.Close())
		must(t, p.Disarm(fs))
		step("disarmed", "", write(file))
		between := create(t, dir+"/between", 8192)
		must(t, p.Arm(fs))
		step("armed again", "4096+4096", write(file))
		step("opened while idle", "4096+4096", write(between))
		must(t, p.Unwatch(fs))
		must(t, p.Unwatch(fs)) // nothing to do
		step("unwatched", "", write(file))
		late := create(t, dir+"/late", 8192)
		must(t, p.Watch(fs))
		must(t, p.Arm(fs))
		step("opened while unwatched", "", write(late))
		step("opened under an earlier watch", "4096+4096", write(file))
	})
}

// What each operation is announced as.
func TestRanges(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		l := listen(t, p, 2)
		must(t, p.Watch(fs))
		f := create(t, dir+"/file", 64<<10)
		fd := int(f.Fd())
		must(t, p.Arm(fs))
		page := make([]byte, 4096)
		cases := []struct {
			what, want string
			f          func() error
		}{
			{"write", "8192+4096", func() error { _, err := unix.Pwrite(fd, page[:10], 8200); return err }},
			{"write over a page end", "4096+8192", func() error { _, err := unix.Pwrite(fd, page[:10], 8190); return err }},
			{"write of nothing", "0+0", func() error { _, err := unix.Pwrite(fd, nil, 0); return err }},
			{"read", "0+4096", func() error { _, err := unix.Pread(fd, page[:1], 0); return err }},
			{"truncate at a page", "8192+0", func() error { return unix.Ftruncate(fd, 8192) }},
			{"grow", "61440+4096", func() error { return unix.Truncate(dir+"/file", 65535) }},
			{"punch", "4096+4096", func() error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096)
			}},
			{"collapse", "4096+4096", func() error { return unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 4096, 4096) }},
			{"map", "0+8192", func() error {
				m, err := unix.Mmap(fd, 0, 8000, unix.PROT_READ, unix.MAP_SHARED)
				if err == nil {
					err = unix.Munmap(m)
				}
				return err
			}},
			{"open and truncate", "open", func() error {
				g, err := os.OpenFile(dir+"/file", os.O_WRONLY|os.O_TRUNC, 0)
				if err == nil {
					g.Close()
				}
				return err
			}},
			{"names and attributes", "", func() error {
				return errors.Join(os.Mkdir(dir+"/sub", 0o700), os.Link(dir+"/file", dir+"/sub/link"), os.Rename(dir+"/sub/link", dir+"/sub/name"),
					os.Chmod(dir+"/file", 0o640), os.Chtimes(dir+"/file", time.Now(), time.Now()), os.RemoveAll(dir+"/sub"))
			}},
			{"O_PATH", "", func() error {
				h, err := unix.Open(dir+"/file", unix.O_PATH, 0)
				unix.Close(h)
				return err
			}},
			{"pipe", "", func() error {
				must(t, unix.Mkfifo(dir+"/pipe", 0o600))
				h, err := os.OpenFile(dir+"/pipe", os.O_RDWR, 0)
				if err == nil {
					_, err = h.Write(page[:1])
					h.Close()
				}
				return err
			}},
			{"device", "", func() error {
				must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
				h, err := os.OpenFile(dir+"/null", os.O_RDWR, 0)
				if err == nil {
					_, err = h.Write(page[:1])
					h.Close()
				}
				return err
			}},
		}
		for _, c := range cases {
			if err := c.f(); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			if got := l.take(); got != c.want {
				t.Errorf("%s: events %q, want %q", c.what, got, c.want)
			}
		}
	})
}

// An opening that truncates can be held: it has not truncated yet.
func TestOpenTruncate(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		must(t, os.WriteFile(dir+"/file", []byte("content"), 0o600))
		fs := openDir(t, dir)
		p := newGroup(t)
		l := listen(t, p, 1)
		must(t, p.Watch(fs))
		must(t, p.Arm(fs))
		l.setHold(true)
		done := make(chan error, 1)
		go func() {
			f, err := os.OpenFile(dir+"/file", os.O_WRONLY|os.O_TRUNC, 0)
			f.Close()
			done <- err
		}()
		e := l.waitHeld(t, 1)[0]
		b := make([]byte, 20)
		n, err := unix.Pread(int(e.FD), b, 0) // no event of ours
		if e.Kind != OpenFile || e.TID == 0 || err != nil || string(b[:n]) != "content" {
			t.Errorf("held event %+v shows %q, %v", e, b[:n], err)
		}
		select {
		case err := <-done:
			t.Errorf("it was not held: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		l.held = nil
		must(t, p.Allow(e))
		if err := <-done; err != nil {
			t.Error(err)
		}
		if st, err := os.Stat(dir + "/file"); err != nil || st.Size() != 0 {
			t.Errorf("afterwards: %v, %v", st, err)
		}
	})
}

// Who is answered goes on while the descriptor stays, and those whom nobody has
// read are counted.
func TestAnswer(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		f := create(t, dir+"/file", 4096)
		must(t, p.Arm(fs))
		const many = 3
		done := make(chan error, many)
		for range many {
			go func() {
				_, err := unix.Pwrite(int(f.Fd()), []byte("x"), 0)
				done <- err
			}()
		}
		awaitUnread(t, p, many)
		b := NewBuffer(1)
		for i := range many {
			events, err := p.Read(b)
			must(t, err)
			e := events[0]
			if n, err := p.Unread(); err != nil || n != many-1-i {
				t.Errorf("unread are %d, %v", n, err)
			}
			must(t, p.Answer(e))
			must(t, <-done)
			if _, err := unix.Pread(int(e.FD), make([]byte, 1), 0); err != nil {
				t.Errorf("its descriptor: %v", err)
			}
			p.Drop(e)
		}
		must(t, p.Close())
		if _, err := p.Unread(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// awaitUnread waits until so many events wait to be read.
func awaitUnread(t *testing.T, p *Permission, many int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := p.Unread()
		must(t, err)
		if n == many {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d wait", n, many)
		}
	}
}

// Close does not wait for who does not come back, who can still answer, and then
// ends the group.
func TestCloseInUse(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		f := create(t, dir+"/file", 4096)
		must(t, p.Arm(fs))
		done := make(chan error, 1)
		go func() {
			_, err := unix.Pwrite(int(f.Fd()), []byte("x"), 0)
			done <- err
		}()
		events, err := p.Read(NewBuffer(1))
		must(t, err)
		inside, back := make(chan struct{}), make(chan struct{})
		used := make(chan error, 1)
		go func() {
			used <- p.using(func() error { close(inside); <-back; return nil })
		}()
		<-inside
		if err := p.Close(); !errors.Is(err, errInUse) {
			t.Errorf("close: %v", err)
		}
		must(t, p.Allow(events[0]))
		must(t, <-done)
		close(back)
		must(t, <-used)
		<-p.gone
		if err := p.Answer(events[0]); !errors.Is(err, os.ErrClosed) {
			t.Errorf("an answer after the end: %v", err)
		}
	})
}
