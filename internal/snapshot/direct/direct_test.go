package direct

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/flagfile"
)

// A fake is a Holder of one directory, whose files hold what it says.
type fake struct {
	items []snapshot.Item
	names []snapshot.Name
	err   error
	saved []byte // of file 7
	asked int
	mu    sync.Mutex
}

func (f *fake) Top() (snapshot.Item, error) { return f.items[0], f.err }
func (f *fake) Lookup(dir uint64, name string) (snapshot.Item, error) {
	for _, i := range f.items {
		if i.Name == name && dir == 1 {
			return i, f.err
		}
	}
	return snapshot.Item{}, syscall.ENOENT
}
func (f *fake) List(uint64) (snapshot.Listing, error) {
	return snapshot.Listing{Items: f.items, Names: f.names}, f.err
}
func (f *fake) Describe(numbers []uint64) (all []snapshot.Item, err error) {
	for _, n := range numbers {
		all = append(all, f.items[n])
	}
	return all, f.err
}
func (f *fake) ReadAt(number uint64, p []byte, offset int64) (int, error) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	return copy(p, f.saved[offset:]), nil
}
func (f *fake) Next(number uint64, offset int64, hole bool) (int64, error) {
	if hole {
		return offset + int64(number), f.err
	}
	return 0, syscall.ENXIO
}
func (f *fake) Verify(uint64) error { return f.err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// odd are items with values at the ends of what there is.
func odd() []snapshot.Item {
	return []snapshot.Item{
		{Info: file.Info{Kind: file.Folder, Mode: 0o7777, Inode: 1, Modified: time.Unix(-1<<31, 999_999_999), Changed: time.Unix(1<<33, 0)}},
		{Name: "\xff\n", Info: file.Info{Kind: file.Regular, UID: 1<<32 - 1, GID: 5, Links: 1 << 32, Size: 1<<63 - 1, Blocks: 1 << 60, Inode: 1<<64 - 1,
			Device: 1 << 40, Node: 7, Modified: time.Unix(0, 1), Changed: time.Unix(0, 0)}, Flags: 1<<32 - 1,
			XAttrs: []snapshot.XAttr{{Name: "user.a"}, {Name: "user.b", Value: "\x00\xff"}}, Handle: "\x01\x02"},
		{Name: "link", Info: file.Info{Kind: file.Symlink, Inode: 2, Modified: time.Unix(1, 1), Changed: time.Unix(1, 1)}, Target: "to/\xfe"},
	}
}

// served returns a Reader of a holder at the other end of a socket, and what
// ends the serving.
func served(t *testing.T, h Holder, flags *flagfile.File) (*Reader, func()) {
	t.Helper()
	mount, err := os.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { mount.Close() })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "socket"), Net: "unix"})
	must(t, err)
	var mu sync.Mutex
	var conns []*net.UnixConn
	end := func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	}
	t.Cleanup(end)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go func() { _ = Serve(c, h, Live{mount, flags}) }()
		}
	}()
	r, err := Attach(func() (*net.UnixConn, error) { return net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)) })
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r, end
}

func newFlags(t *testing.T) *flagfile.File {
	t.Helper()
	f, err := flagfile.New()
	must(t, err)
	return f
}

// Whatever a holder says comes over the socket as it was, by many at a time.
func TestTalk(t *testing.T) {
	f := &fake{items: odd(), names: []snapshot.Name{{Name: "\xff", Kind: file.Block, Inode: 1<<64 - 1}}, saved: bytes.Repeat([]byte("saved"), 1<<19)}
	r, _ := served(t, f, newFlags(t))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if l, err := r.List(1); err != nil || !reflect.DeepEqual(l, snapshot.Listing{Items: f.items, Names: f.names}) {
					t.Errorf("list: %+v, %v", l, err)
				}
				if i, err := r.Lookup(1, "\xff\n"); err != nil || !reflect.DeepEqual(i, f.items[1]) {
					t.Errorf("lookup: %+v, %v", i, err)
				}
				if i, err := r.Top(); err != nil || !reflect.DeepEqual(i, f.items[0]) {
					t.Errorf("top: %+v, %v", i, err)
				}
				if all, err := r.Describe([]uint64{2, 1}); err != nil || len(all) != 2 || !reflect.DeepEqual(all[1], f.items[1]) {
					t.Errorf("describe: %+v, %v", all, err)
				}
				p := make([]byte, 3<<19)
				if n, err := r.ReadAt(7, p, 5); err != nil || n != most || !bytes.Equal(p[:n], f.saved[5:5+n]) {
					t.Errorf("read: %d, %v", n, err)
				}
				if at, err := r.Next(7, 1<<40, true); at != 1<<40+7 || err != nil {
					t.Errorf("next hole: %d, %v", at, err)
				}
				if _, err := r.Next(7, 0, false); !errors.Is(err, syscall.ENXIO) || problem.CodeOf(err) != problem.Uncatalogued {
					t.Errorf("next data: %v", err)
				}
				if err := r.Verify(7); err != nil {
					t.Errorf("verify: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// An error keeps its errno and its code, and a snapshot that is lost is lost.
func TestErrors(t *testing.T) {
	for _, k := range []struct {
		err  error
		code problem.Code
		errs []error
		lost bool
	}{
		{syscall.ESTALE, problem.Uncatalogued, []error{syscall.ESTALE}, false},
		{errors.Join(syscall.EBADMSG, problem.Newf(problem.FileTorn, "", "torn")), problem.FileTorn, []error{syscall.EBADMSG}, false},
		{problem.New(problem.SnapshotLost, "id", problem.Newf(problem.CacheFull, "dir", "full")), problem.CacheFull, nil, true},
		{problem.Newf(problem.SnapshotLost, "id", "released"), problem.SnapshotLost, nil, true},
	} {
		r, _ := served(t, &fake{items: odd(), err: k.err}, newFlags(t))
		for range 2 { // the connection is as good as before
			err := r.Verify(1)
			if problem.CodeOf(err) != k.code || problem.Is(err, problem.SnapshotLost) != k.lost {
				t.Errorf("%v came as %v", k.err, err)
			}
			for _, e := range k.errs {
				if !errors.Is(err, e) {
					t.Errorf("%v came as %v, without %v", k.err, err, e)
				}
			}
		}
	}
}

// When the holder is gone everything fails, now and later.
func TestGone(t *testing.T) {
	r, end := served(t, &fake{items: odd()}, newFlags(t))
	must(t, r.Verify(1))
	end()
	for range 3 {
		if err := r.Verify(1); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("verify: %v", err)
		}
	}
	if _, err := Attach(func() (*net.UnixConn, error) { return nil, syscall.ECONNREFUSED }); !problem.Is(err, problem.SnapshotLost) {
		t.Errorf("attach to nobody: %v", err)
	}
	if _, err := Attach(func() (*net.UnixConn, error) { return nil, errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) || problem.Is(err, problem.SnapshotLost) {
		t.Errorf("attach to who cannot: %v", err)
	}
}

// What makes no sense ends the talk and nothing else.
func TestNonsense(t *testing.T) {
	whole := appendListing(nil, snapshot.Listing{Items: odd(), Names: []snapshot.Name{{Name: "n", Kind: file.Regular, Inode: 3}}})
	for n := range whole {
		if m := (&message{b: whole[:n]}); len(m.listing().Items) > 0 && m.err == nil {
			t.Errorf("a message cut at %d makes sense", n)
		}
		m := &message{b: bytes.Repeat([]byte{0xff}, n)}
		if m.listing(); n > 0 && m.err == nil {
			t.Errorf("%d times 0xff makes sense", n)
		}
	}
	for _, request := range [][]byte{{0}, {99, 1}, {opDescribe, 255, 255, 3}, {opRead, 7, 0, 255, 255, 255, 255, 15}, {opLookup, 1, 200}} {
		r, w := pair(t)
		go func() { _ = Serve(r, &fake{items: odd()}, Live{}) }()
		must(t, send(w, append(make([]byte, lengthSize), request...)))
		answer, err := receive(w, nil, mostAnswer)
		if err != nil || answer[0] != failed {
			t.Errorf("%v is answered with %v, %v", request, answer, err)
		}
		w.Close()
	}
}

func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// A file is read live until its flag is set, also by a reader that is at work
// just then, and from then on the holder is asked.
func TestFlag(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	live, saved := bytes.Repeat([]byte("live"), 1000), bytes.Repeat([]byte("save"), 1000)
	must(t, os.WriteFile(path, live, 0o600))
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	f, flags := &fake{items: odd(), saved: saved}, newFlags(t)
	open := func() *content {
		fd, err := file.Open(file.Here, path, file.Read)
		must(t, err)
		c := &content{r: New(f, Live{Flags: flags}, nil), number: 7, fd: fd, item: snapshot.Item{Info: file.Info{Size: int64(len(live)),
			Modified: time.Unix(st.Mtim.Unix()), Changed: time.Unix(st.Ctim.Unix())}}}
		t.Cleanup(func() { must(t, c.Close()) })
		return c
	}
	c, p := open(), make([]byte, len(live)+1)
	if n, err := c.ReadAt(p, 0); n != len(live) || err != io.EOF || !bytes.Equal(p[:n], live) || f.asked != 0 {
		t.Errorf("read live: %d, %v, asked %d times", n, err, f.asked)
	}
	must(t, c.Verify())
	must(t, os.WriteFile(path, live[:8], 0o600)) // unseen
	f.err = syscall.EBADMSG
	if err := c.Verify(); !errors.Is(err, syscall.EBADMSG) {
		t.Errorf("verify: %v", err)
	}
	flags.Add(7)
	f.err = nil
	if n, err := c.ReadAt(p[:10], 3990); n != 10 || err != nil || !bytes.Equal(p[:10], saved[3990:]) || f.asked == 0 {
		t.Errorf("read what was saved: %q, %v", p[:n], err)
	}
	if at, err := c.Next(5, true); at != 12 || err != nil {
		t.Errorf("the next hole is at %d, %v", at, err)
	}
	late := open()
	if err := late.Verify(); err != nil {
		t.Errorf("nothing was read live: %v", err)
	}
}
