package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/agent"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/snapshot/direct"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/tree"
)

// reader reads a snapshot in this process.
func (r *rig) reader(s snapshot.Readable) snapshot.Reader {
	r.Helper()
	d, err := s.Reader(r.Context())
	r.must(err)
	r.Cleanup(func() { r.must(d.Close()) })
	return d
}

// lent reads it as another process does.
func (r *rig) lent(s *target) snapshot.Reader {
	r.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	r.must(err)
	r.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() { _ = s.Lend(c) }()
		}
	}()
	d, err := direct.Attach(func() (*net.UnixConn, error) {
		return net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	})
	r.must(err)
	r.Cleanup(func() { r.must(d.Close()) })
	return d
}

// variety makes files with everything that is stored of them.
func (r *rig) variety() {
	r.Helper()
	r.must(errors.Join(os.MkdirAll(r.path("dir/below"), 0o750), os.Mkdir(r.path("large"), 0o755), os.Mkdir(r.path("empty"), 0o700)))
	for i := range 700 { // more than are listed with all that they are
		name := r.path(fmt.Sprint("large/", i*7919%1000))
		if i%50 == 0 {
			r.must(os.Mkdir(name, 0o755))
		} else {
			r.must(os.WriteFile(name, []byte(name), 0o640))
		}
	}
	for name, content := range map[string][]byte{
		"plain": bytes.Repeat([]byte("plain"), 50_000), "none": nil, "dir/below/odd \xff\n": []byte("odd"),
		"changes": bytes.Repeat([]byte("changes!"), 100_000), "shrinks": bytes.Repeat([]byte("shrinks!"), 10_000), "goes": []byte("goes"),
	} {
		r.must(os.WriteFile(r.path(name), content, 0o644))
	}
	r.must(os.Link(r.path("plain"), r.path("dir/again")))
	r.must(os.Symlink("no/where", r.path("dir/link")))
	r.must(unix.Mkfifo(r.path("fifo"), 0o600))
	r.must(unix.Mknod(r.path("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	r.must(unix.Setxattr(r.path("plain"), "user.b", []byte("2"), 0))
	r.must(unix.Setxattr(r.path("plain"), "user.a", nil, 0))
	r.must(unix.Setxattr(r.path("dir"), "trusted.d", []byte{0, 255}, 0))
	f, err := os.Create(r.path("holes"))
	r.must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte("data"), 1<<18), 3<<20)
	r.must(errors.Join(err, f.Truncate(9<<20), f.Sync(), f.Close()))
	for name, flags := range map[string]string{"plain": "+d", "none": "+S", "dir": "+A"} {
		if out, err := exec.Command("chattr", flags, r.path(name)).CombinedOutput(); err != nil {
			r.Fatalf("chattr: %v: %s", err, out)
		}
	}
	r.must(os.Chtimes(r.path("holes"), time.Unix(-5, 7), time.Unix(-5, 7)))
}

// alter changes all of that.
func (r *rig) alter() {
	r.Helper()
	f, err := os.OpenFile(r.path("changes"), os.O_RDWR, 0)
	r.must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 10_000), 123_456)
	r.must(errors.Join(err, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 65536), f.Close()))
	f, err = os.OpenFile(r.path("holes"), os.O_RDWR, 0)
	r.must(err)
	_, err = f.WriteAt([]byte("filled"), 1<<20)
	r.must(errors.Join(err, f.Close()))
	r.must(errors.Join(os.Truncate(r.path("shrinks"), 5), os.Remove(r.path("goes")), os.RemoveAll(r.path("large")),
		os.Rename(r.path("dir"), r.path("moved")), os.Chmod(r.path("plain"), 0o600), os.WriteFile(r.path("new"), []byte("new"), 0o600)))
	for range 5 {
		r.must(os.WriteFile(r.path("replacement"), []byte("another"), 0o644))
		r.must(os.Rename(r.path("replacement"), r.path("none")))
	}
}

// stored is all that a backup would store of a tree, by path.
func (r *rig) stored(src tree.Source) map[string]string {
	r.Helper()
	src.Path = "/live"
	n, err := tree.Open(src)
	r.must(err)
	defer n.Close()
	all := map[string]string{}
	r.storedBelow(n.Dir, all)
	n.Entry.Name = ""
	all["."] = fmt.Sprintf("%+v", n.Entry)
	return all
}

func (r *rig) storedBelow(d *tree.Dir, all map[string]string) {
	r.Helper()
	names, err := d.Names()
	r.must(err)
	all[d.Path()+" in order"] = fmt.Sprint(names)
	for _, n := range names {
		e, err := d.Stat(n.Name)
		r.must(err)
		r.must(d.Complete(&e))
		text := ""
		if e.Type == tree.File {
			c, err := d.OpenFile(e)
			r.must(err)
			flags, err := c.Flags()
			r.must(err)
			e.Flags |= flags
			e.Holes, err = c.Holes()
			r.must(err)
			content := make([]byte, e.Size)
			if n, err := c.ReadAt(content, 0); n < len(content) || err != nil && err != io.EOF {
				r.Fatalf("%s: %d bytes, %v", e.Name, n, err)
			}
			after, err := c.Stat()
			r.must(errors.Join(err, c.Close()))
			if tree.Changed(e, after) {
				r.Errorf("%s is other after it was read", e.Name)
			}
			text = fmt.Sprintf(" %x", content)
		}
		all[d.Path()+"/"+n.Name] = fmt.Sprintf("%+v", e) + text
		if e.Type == tree.Directory {
			sub, err := d.OpenDir(n.Name)
			r.must(err)
			r.storedBelow(sub, all)
			r.must(sub.Close())
		}
	}
}

func (r *rig) directly(d snapshot.Reader) tree.Source {
	r.Helper()
	at, err := tree.DirectBeneath(d, ".", "/live")
	r.must(err)
	return tree.Source{Direct: at}
}

// What is stored is the same to the last attribute, however the snapshot is
// read, before and after everything has changed.
func TestDirectIsTheSame(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.variety()
		s := r.take(nil)
		here, there := r.reader(s), r.lent(s)
		for _, when := range []string{"before", "after"} {
			want := r.stored(tree.Source{Root: s.Root()})
			for where, d := range map[string]snapshot.Reader{"here": here, "there": there} {
				got := r.stored(r.directly(d))
				for name, entry := range want {
					if got[name] != entry {
						t.Errorf("%s, read %s: %s is\n%.2000s\nnot\n%.2000s", when, where, name, got[name], entry)
					}
				}
				if len(got) != len(want) {
					t.Errorf("%s, read %s: %d names, not %d", when, where, len(got), len(want))
				}
			}
			if when == "before" {
				r.alter()
			}
		}
		if gaps := s.Gaps(); len(gaps) > 0 {
			t.Errorf("gaps: %+v", gaps)
		}
		r.must(s.Err())
	})
}

// A part of a tree, a single file, and what is not there.
func TestDirectBeneath(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.variety()
		s := r.take(nil)
		d := r.lent(s)
		for rel, code := range map[string]problem.Code{"dir/nothing": problem.PathMissing, "dir/link/x": problem.FileChanged, "plain/x": problem.FileChanged} {
			if _, err := tree.DirectBeneath(d, rel, "/live"); problem.CodeOf(err) != code {
				t.Errorf("%s: %v", rel, err)
			}
		}
		for _, rel := range []string{"dir/below", "plain", "dir/link", "null"} {
			at, err := tree.DirectBeneath(d, rel, "/live")
			r.must(err)
			n, err := tree.Open(tree.Source{Path: "/live", Direct: at})
			r.must(err)
			shown, err := tree.Open(tree.Source{Path: "/live", Root: s.Root() + "/" + rel})
			r.must(err)
			if !reflect.DeepEqual(n.Entry, shown.Entry) {
				t.Errorf("%s is\n%+v, not\n%+v", rel, n.Entry, shown.Entry)
			}
			r.must(errors.Join(n.Close(), shown.Close()))
		}
	})
}

// open opens a file of a Reader.
func (r *rig) open(d snapshot.Reader, name string) snapshot.Content {
	r.Helper()
	top, err := d.Top()
	r.must(err)
	i, err := d.Lookup(top.Info.Inode, name)
	r.must(err)
	c, err := d.Open(i)
	r.must(err)
	r.Cleanup(func() { r.must(c.Close()) })
	return c
}

// What was read of a live file before it was let change is good, and all that is
// read after that is asked for; what changed without an event is never handed
// out as good, whichever came first.
func TestDirectTripwire(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		original := bytes.Repeat([]byte("original"), 1<<20/8)
		r.must(os.WriteFile(r.path("image"), original, 0o644))
		r.p.o.cold = func(u hot.Use) bool { return u.Kind == hot.Loop }
		out, err := exec.Command("losetup", "--find", "--show", "--direct-io=off", r.path("image")).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		device := strings.TrimSpace(string(out))
		t.Cleanup(func() { r.must(exec.Command("losetup", "--detach", device).Run()) })
		unseen := func() {
			f, err := os.OpenFile(device, os.O_WRONLY|syscall.O_SYNC, 0)
			r.must(err)
			_, err = f.WriteAt(bytes.Repeat([]byte("changed!"), 4096/8), 64<<10)
			r.must(errors.Join(err, f.Close()))
		}
		seen := func() {
			f, err := os.OpenFile(r.path("image"), os.O_WRONLY, 0)
			r.must(err)
			_, err = f.WriteAt([]byte("seen"), 0)
			r.must(errors.Join(err, f.Close()))
		}
		for _, k := range []struct {
			name string
			do   []func() // between two readings of half the file each
			torn bool
		}{
			{"nothing", nil, false},
			{"seen", []func(){seen}, false},
			{"unseen", []func(){unseen}, true},
			{"unseen, seen", []func(){unseen, seen}, true},
		} {
			r.must(os.WriteFile(r.path("image"), original, 0o644))
			s := r.take(nil)
			for _, d := range []snapshot.Reader{r.reader(s), r.lent(s)} {
				c := r.open(d, "image")
				got := make([]byte, len(original))
				_, before := c.ReadAt(got[:len(got)/2], 0)
				for _, do := range k.do {
					r.must(before)
					do()
				}
				k.do = nil // the second reader comes late, and reads the same
				_, err := c.ReadAt(got[len(got)/2:], int64(len(got)/2))
				err = errors.Join(before, err, c.Verify())
				switch {
				case !k.torn && (err != nil || !bytes.Equal(got, original)):
					t.Errorf("%s: %v, or wrong content", k.name, err)
				case k.torn && !errors.Is(err, syscall.EBADMSG):
					t.Errorf("%s: read with %v", k.name, err)
				}
				if !k.torn {
					continue
				}
				again := r.open(d, "image")
				_, err = again.ReadAt(got, 0)
				if err = errors.Join(err, again.Verify()); !errors.Is(err, syscall.EBADMSG) {
					t.Errorf("%s: read again with %v", k.name, err)
				}
			}
			if k.torn {
				wantGap(t, s, "image", problem.FileTorn)
			}
			r.must(s.Err())
			r.must(s.Release(t.Context()))
		}
	})
}

// A file whose chmod or utimes moved the times is no torn one.
func TestDirectAttributesChange(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), []byte("content"), 0o644))
		s := r.take(nil)
		c := r.open(r.lent(s), "file")
		got := make([]byte, 7)
		_, err := c.ReadAt(got, 0)
		r.must(err)
		r.must(errors.Join(os.Chmod(r.path("file"), 0o600), os.Chtimes(r.path("file"), time.Unix(5, 5), time.Unix(5, 5)), os.Link(r.path("file"), r.path("again"))))
		r.must(c.Verify())
		if string(got) != "content" {
			t.Errorf("reads %q", got)
		}
		r.must(s.Err())
	})
}

// Files that are given up, gone or released fail as they do through the view.
func TestDirectGivenUp(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), []byte("content"), 0o644))
		s := r.take(nil)
		d := r.lent(s)
		c, b := r.open(d, "file"), make([]byte, 7)
		_, err := c.ReadAt(b, 0)
		r.must(err)
		var st unix.Stat_t
		r.must(unix.Stat(r.path("file"), &st))
		s.shield.GiveUp(st.Ino)
		if _, err := c.ReadAt(b, 0); !errors.Is(err, syscall.EBADMSG) || problem.CodeOf(err) != problem.FileTorn {
			t.Errorf("given up: %v", err)
		}
		r.must(s.Release(t.Context()))
		if _, err := c.ReadAt(b, 0); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("released: %v", err)
		}
		if _, err := d.List(2); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("list a released one: %v", err)
		}
		if _, err := s.Reader(context.Background()); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("begin to read a released one: %v", err)
		}
	})
}

// The contract holds through an agent, where another process reads the live
// files.
func TestSuiteThroughAgent(t *testing.T) {
	h := suiteHost("ext4")
	h.New = func(tb testing.TB) snapshot.Provider {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
		if err != nil {
			tb.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- agent.NewServer(New(host, Options{})).Serve(ctx, l) }()
		c, err := agent.Dial(tb.Context(), l.Addr().String(), "")
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			c.Close()
			cancel()
			if err := <-ended; err != nil {
				tb.Error(err)
			}
		})
		return c
	}
	for _, name := range []string{"state", "selected-paths", "two-readings", "open-reader"} {
		t.Run(name, func(t *testing.T) { snapshottest.RunCheck(t, h, name) })
	}
}

// lenderVariable is set in the child of TestDirectHolderDies, to the abstract
// address that it listens on.
const lenderVariable = "STILLPOINT_TEST_LENDER"

// TestLender is a process that is an agent until it is ended.
func TestLender(t *testing.T) {
	address := os.Getenv(lenderVariable)
	if address == "" {
		return // is run by TestDirectHolderDies only
	}
	l, err := net.Listen("unix", address)
	if err == nil {
		fmt.Println("ready")
		err = agent.NewServer(New(host, Options{})).Serve(context.Background(), l)
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// The process that holds the snapshot is killed while another one reads: from
// then on nothing that it could not have verified is good, and the snapshot is
// lost.
func TestDirectHolderDies(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.variety()
		address := fmt.Sprintf("@stillpoint-test-%d-%s", os.Getpid(), filepath.Base(r.dir))
		c := exec.Command(os.Args[0], "-test.run=^TestLender$")
		c.Env = append(os.Environ(), lenderVariable+"="+address)
		out, err := c.StdoutPipe()
		r.must(err)
		r.must(c.Start())
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		ready := make([]byte, 6)
		if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
			t.Fatalf("the agent says %q, %v", ready, err)
		}
		client, err := agent.Dial(t.Context(), address, "")
		r.must(err)
		defer client.Close()
		pending, err := client.Prepare(t.Context(), "dies", []snapshot.Target{r.target})
		r.must(err)
		r.must(pending.Hold(t.Context()))
		snaps, err := pending.Commit(t.Context())
		r.must(errors.Join(err, pending.Resume(t.Context())))
		d := r.reader(snaps[0].(snapshot.Readable))
		want := bytes.Repeat([]byte("changes!"), 100_000)
		changed, same, saved := r.open(d, "changes"), r.open(d, "plain"), r.open(d, "shrinks")
		got := make([]byte, len(want))
		_, err = changed.ReadAt(got, 0)
		r.must(err)
		r.must(os.Truncate(r.path("shrinks"), 5))

		r.must(c.Process.Kill())
		_ = c.Wait()
		r.alter()
		if err := changed.Verify(); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("verify what changed after the death: %v", err)
		}
		for n, f := range []snapshot.Content{changed, saved, same} {
			b := make([]byte, 4096)
			_, err := f.ReadAt(b, 0)
			if err == nil {
				err = f.Verify()
			}
			if !problem.Is(err, problem.SnapshotLost) {
				t.Errorf("read file %d after the death: %v", n, err)
			}
		}
		if _, err := d.List(2); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("list after the death: %v", err)
		}
		if err := snaps[0].Err(); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("Err is %v", err)
		}
	})
}

// described is the manifest of what a Reader shows, as rig.manifest makes it.
func (r *rig) described(d snapshot.Reader) map[string]string {
	r.Helper()
	m := map[string]string{}
	top, err := d.Top()
	r.must(err)
	r.describe(d, m, ".", top)
	return m
}

func (r *rig) describe(d snapshot.Reader, m map[string]string, name string, i snapshot.Item) {
	r.Helper()
	f := i.Info
	line := fmt.Sprintf("ino %d mode %o nlink %d uid %d size %d mtime %d.%09d ctime %d.%09d", f.Inode, uint32(f.Kind)|f.Mode, f.Links, f.UID, f.Size,
		f.Modified.Unix(), f.Modified.Nanosecond(), f.Changed.Unix(), f.Changed.Nanosecond())
	if f.Kind == unix.S_IFREG {
		c, err := d.Open(i)
		r.must(err)
		content, err := io.ReadAll(io.NewSectionReader(c, 0, f.Size))
		if err = errors.Join(err, c.Verify(), c.Close()); err != nil {
			r.Fatalf("%s: %v", name, err)
		}
		line += contentLine(content)
		n := slices.IndexFunc(i.XAttrs, func(x snapshot.XAttr) bool { return x.Name == "user.stress" })
		if n >= 0 {
			line += fmt.Sprintf(" xattr %x", i.XAttrs[n].Value)
		}
	}
	m[name] = line
	if f.Kind != unix.S_IFDIR {
		return
	}
	l, err := d.List(f.Inode)
	r.must(err)
	for _, i := range l.Items {
		r.describe(d, m, filepath.Join(name, i.Name), i)
	}
}
