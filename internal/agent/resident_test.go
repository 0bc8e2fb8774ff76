package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// A watcher is a fake provider that watches scratch volumes, and nothing else.
type watcher struct {
	*fake.Provider
	mu    sync.Mutex
	state map[volume.ID]snapshot.Watched
}

func isScratch(v volume.Volume) error {
	if !strings.Contains(v.Mounts[0].Point, "stillpoint-scratch-") {
		return problem.Newf(problem.NoProvider, string(v.ID), "is not of a test")
	}
	return nil
}

func (w *watcher) Watch(_ context.Context, v volume.Volume) error {
	if err := isScratch(v); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state[v.ID] = snapshot.Watched{Volume: v.ID, Kept: true}
	return nil
}

func (w *watcher) Unwatch(id volume.ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.state, id)
	return nil
}

func (w *watcher) Watched() (all []snapshot.Watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range w.state {
		s.Events += 40
		w.state[id] = s
		all = append(all, s)
	}
	return all
}

func (w *watcher) Unseen(context.Context, volume.Volume) ([]snapshot.Unseen, error) {
	return []snapshot.Unseen{{PID: 7, Program: "p", Kind: "mapping", Files: 2, Paths: []string{"/x"}, Advice: "end it"}}, nil
}

// Tell makes it a snapshot.Teller.
func (w *watcher) Tell(log *slog.Logger) { log.Info("told") }

// A lines is a log that tests can read meanwhile.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

func hostTable(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// startResident runs a resident agent until the test ends, or stop is called.
func startResident(t *testing.T, w *watcher, o Options) (c *Control, log *lines, stop func()) {
	t.Helper()
	log = &lines{}
	ready, ended := make(chan struct{}), make(chan error, 1)
	if o.Host == nil {
		o.Host = hostTable
	}
	o.Providers, o.Log, o.Ready = []snapshot.Provider{w}, slog.New(slog.NewTextHandler(log, nil)), func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- Run(ctx, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the agent ends with %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the agent does not end")
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("the agent does not start")
	}
	return NewControl(o.Socket), log, stop
}

func newWatcher(t *testing.T, o fake.Options) *watcher {
	o.Accept = isScratch
	return &watcher{Provider: fake.New(t.TempDir(), o), state: map[volume.ID]snapshot.Watched{}}
}

func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not soon: %s", what)
		}
	}
}

// Without paths all volumes are watched that can be, those mounted later, too,
// and let go of when they are unmounted.
func TestWatchesAll(t *testing.T) {
	w := newWatcher(t, fake.Options{})
	first := scratch.New(t, "ext4", 32*scratch.MiB)
	c, log, _ := startResident(t, w, Options{Socket: filepath.Join(t.TempDir(), "socket")})
	is := func(dir string) func() bool {
		v, _ := scratch.Find(t, dir)
		return func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			_, ok := w.state[v.ID]
			return ok
		}
	}
	if !is(first.Dir)() {
		t.Error("a volume is not watched when the agent is ready")
	}
	second := scratch.New(t, "ext4", 32*scratch.MiB)
	watched := is(second.Dir)
	soon(t, "a new volume is watched", watched)
	soon(t, "events have a rate", func() bool {
		s, err := c.Status(t.Context())
		return err == nil && len(s.Volumes) >= 2 && s.Volumes[0].PerSecond >= 40 && s.Volumes[0].Unseen[0].Advice == "end it"
	})
	scratch.Run(t, "umount", second.Dir)
	soon(t, "it is let go of", func() bool { return !watched() })
	scratch.Run(t, "mount", second.Devices[0], second.Dir)
	soon(t, "it is watched again", watched)
	if !log.has("volume no longer watched") || log.has("WARN") {
		t.Errorf("the log says\n%s", log.b.String())
	}
}

// A path stands for the volume that it was on: after an unmount it leads to
// another one, which nobody has asked for.
func TestWatchesPaths(t *testing.T) {
	w := newWatcher(t, fake.Options{})
	v, other := scratch.New(t, "ext4", 32*scratch.MiB), scratch.New(t, "ext4", 32*scratch.MiB)
	dir := filepath.Join(other.Dir, "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "mount", v.Devices[0], dir)
	scratch.Run(t, "umount", v.Dir)
	_, log, _ := startResident(t, w, Options{Socket: filepath.Join(t.TempDir(), "socket"), Paths: []string{dir, "/nosuch"}})
	if n := len(w.Watched()); n != 1 {
		t.Errorf("%d volumes are watched", n)
	}
	if !log.has("msg=told") {
		t.Error("the provider has not got the log")
	}
	if !log.has("path-missing") {
		t.Error("nothing is said of a path that is missing")
	}
	scratch.Run(t, "umount", dir)
	soon(t, "nothing is watched", func() bool { return len(w.Watched()) == 0 })
	scratch.Run(t, "mount", v.Devices[0], v.Dir) // as scratch wants it
}

// Who unmounts one volume after the other finds none in use: to look at the host
// opens each for a moment.
func TestUnmountsInARow(t *testing.T) {
	w := newWatcher(t, fake.Options{})
	var looks atomic.Int32
	look := func(ctx context.Context) (*volume.Table, error) {
		looks.Add(1)
		return hostTable(ctx)
	}
	v := scratch.New(t, "ext4", 32*scratch.MiB)
	_, _, _ = startResident(t, w, Options{Socket: filepath.Join(t.TempDir(), "socket"), Host: look})
	first := looks.Load()
	dirs := []string{v.Dir + "/a", v.Dir + "/b", v.Dir + "/c"}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		scratch.Run(t, "mount", "-t", "tmpfs", "none", dir)
	}
	// The last of them was looked at, and nobody looks any more.
	before := int32(0)
	soon(t, "a look at what was mounted", func() bool {
		last := looks.Load()
		time.Sleep(2 * calm)
		before = looks.Load()
		return last > first && before == last
	})
	for _, dir := range dirs {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}
	if after := looks.Load(); after != before {
		t.Errorf("%d looks while they were unmounted", after-before)
	}
	soon(t, "a look at what is left", func() bool { return looks.Load() > before })
}

func TestKept(t *testing.T) {
	var during func()
	w := newWatcher(t, fake.Options{Step: func(_ context.Context, name string) error {
		if name == "resume" && during != nil {
			during()
		}
		return nil
	}})
	v := scratch.New(t, "ext4", 32*scratch.MiB)
	var asked atomic.Value // the context of who asked last
	host := func(ctx context.Context) (*volume.Table, error) {
		asked.Store(&ctx)
		return hostTable(ctx)
	}
	c, log, stop := startResident(t, w, Options{Socket: filepath.Join(t.TempDir(), "socket"), Host: host})
	a, err := c.Create(t.Context(), []string{v.Dir})
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Create(t.Context(), []string{v.Dir})
	if err != nil {
		t.Fatal(err)
	}
	// A client that is gone by then gets nothing kept.
	ctx, cancel := context.WithCancel(t.Context())
	during = func() {
		cancel()
		select { // until the agent knows
		case <-(*asked.Load().(*context.Context)).Done():
		case <-time.After(10 * time.Second):
		}
	}
	if k, err := c.Create(ctx, []string{v.Dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", k, err)
	}
	during = nil
	snapshots := func() int {
		return len(slices.DeleteFunc(w.Held(), func(what string) bool { return !strings.HasPrefix(what, "snapshot ") }))
	}
	soon(t, "only two are held", func() bool { return snapshots() == 2 })
	all, err := c.List(t.Context())
	if err != nil || len(all) != 2 || all[0].ID != a.ID || all[1].ID != b.ID || all[0].Lost() || !slices.Equal(all[0].Paths, []string{v.Dir}) {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := c.Pieces(t.Context(), ""); !problem.Is(err, problem.NoSuchSnapshot) {
		t.Errorf("no id: %v", err)
	}
	if ps, err := c.Pieces(t.Context(), b.ID[:6]); err != nil || len(ps) != 1 || ps[0].Path != v.Dir {
		t.Errorf("pieces %v, %v", ps, err)
	}
	if err := c.Delete(t.Context(), a.ID); err != nil || snapshots() != 1 {
		t.Errorf("delete: %v, held %q", err, w.Held())
	}
	if err := c.Delete(t.Context(), a.ID); !problem.Is(err, problem.NoSuchSnapshot) {
		t.Errorf("delete again: %v", err)
	}
	w.Lose(b.Volumes[0].Volume, problem.Newf(problem.CacheFull, "", "it was"))
	all, err = c.List(t.Context())
	if err != nil || !all[0].Lost() || all[0].Volumes[0].Code != problem.CacheFull {
		t.Errorf("lost: %+v, %v", all, err)
	}
	soon(t, "the log says so", func() bool { return log.has(`level=ERROR msg="snapshot lost" id=` + b.ID) })
	stop()
	if held := w.Held(); len(held) > 0 || len(w.Watched()) > 0 {
		t.Errorf("left after the end: %q", held)
	}
	if _, err := c.List(t.Context()); !problem.Is(err, problem.NoAgent) {
		t.Errorf("after the end: %v", err)
	}
}

// Who looks for lost snapshots does not wait for who deletes one.
func TestDeleting(t *testing.T) {
	var st store
	st.mu.Lock()
	defer st.mu.Unlock()
	looked := make(chan []Kept)
	go func() { looked <- st.newlyLost() }()
	select {
	case lost := <-looked:
		if len(lost) > 0 {
			t.Errorf("found %v", lost)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
}

func TestListen(t *testing.T) {
	w := newWatcher(t, fake.Options{})
	socket := filepath.Join(t.TempDir(), "run", "socket")
	// What a killed agent leaves is in nobody's way.
	if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	c, _, stop := startResident(t, w, Options{Socket: socket, Paths: []string{"/nosuch"}})
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	o := Options{Socket: socket, Log: slog.New(slog.DiscardHandler)}
	if err := Run(t.Context(), o); !problem.Is(err, problem.Busy) {
		t.Errorf("a second agent: %v", err)
	}
	if _, err := Dial(t.Context(), socket, "nosuch"); !problem.Is(err, problem.NoAgent) {
		t.Errorf("a provider that it does not have: %v", err)
	}
	stop()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket after the end: %v", err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), o); !problem.Is(err, problem.Usage) {
		t.Errorf("a file in the place of the socket: %v", err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the file: %v", err)
	}
	o.Socket = "/proc/nosuch/socket"
	if err := Run(t.Context(), o); !problem.Is(err, problem.NoAgent) {
		t.Errorf("no place for a socket: %v", err)
	}
}

func TestNotify(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	if err := Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("%q, %v", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}

// A snapshot of "/" covers the memory file system that it is mounted on; both go,
// with the snapshot and in the clean-up after a kill.
func TestMountedRoot(t *testing.T) {
	scratch.NeedRoot(t)
	ns, err := mount.Namespace(os.Getpid()) // detach closes it
	if err != nil {
		t.Fatal(err)
	}
	root, sub, dir := t.TempDir(), t.TempDir(), t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/sub", 0o755), os.WriteFile(root+"/file", nil, 0o644), os.WriteFile(sub+"/inner", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	pieces := []capture.Piece{{Path: "/", Root: root, Rel: "."}, {Path: "/sub", Root: sub, Rel: "."}}
	there := func() int {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), " "+dir)
	}
	const socket = "/nosuch/agent.sock"
	var ids []uint64
	attach := func() {
		t.Helper()
		if err := mountPieces(pieces, Source(socket), dir, func(all []uint64) error { ids = all; return nil }); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"/file", "/sub/inner"} {
			if _, err := os.Stat(dir + name); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() {
		for range 3 {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	attach()
	a := attached{mounted: mounted{Dir: dir, IDs: ids}, namespace: ns}
	if err := a.detach(); err != nil || there() != 0 {
		t.Fatalf("deleted: %v, and %d mounts are left", err, there())
	}
	attach()
	r := &Resident{o: Options{Socket: socket, Host: func(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }, Log: slog.New(slog.DiscardHandler)}}
	if r.sweep(t.Context()); there() != 0 {
		t.Fatalf("%d mounts are left of an agent that was killed", there())
	}
}
