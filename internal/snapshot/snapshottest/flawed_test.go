package snapshottest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// flawed is the fake with a flaw.
type flawed struct {
	*fake.Provider
	f     flaw
	store string
	gate  *fake.Gate

	mu    sync.Mutex
	snaps []*flawedSnapshot
}

func (p *flawed) context(ctx context.Context) context.Context {
	if p.f.context {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (p *flawed) Check(ctx context.Context, v volume.Volume) error {
	err := p.Provider.Check(p.context(ctx), v)
	if err != nil && p.f.refuse != nil && v.ID == "far" {
		return p.f.refuse(err)
	}
	return err
}

func (p *flawed) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	pending, err := p.Provider.Prepare(p.context(ctx), id, ts)
	if err != nil {
		if p.f.refuse != nil && ts[len(ts)-1].Volume.ID == "far" {
			err = p.f.refuse(err)
		}
		if p.f.prepare != nil {
			return p.f.prepare(p, id, ts, err)
		}
		if err != nil {
			return nil, err
		}
		pending, err = p.Provider.Prepare(ctx, id, ts[:1])
		if err != nil {
			return nil, err
		}
	}
	return &flawedSet{Pending: pending, p: p, targets: ts}, nil
}

func (p *flawed) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	left, err := p.Provider.Leftovers(p.context(ctx))
	if p.f.leftover != nil && ctx.Err() == nil {
		return p.f.leftover(p, left, err)
	}
	return left, err
}

func (p *flawed) litter() error {
	return os.WriteFile(filepath.Join(p.store, fmt.Sprint("litter", time.Now().UnixNano())), nil, 0o600)
}

type flawedSet struct {
	snapshot.Pending
	p       *flawed
	targets []snapshot.Target
	snaps   []*flawedSnapshot
}

func (s *flawedSet) Hold(ctx context.Context) error   { return s.Pending.Hold(s.p.context(ctx)) }
func (s *flawedSet) Resume(ctx context.Context) error { return s.Pending.Resume(s.p.context(ctx)) }

func (s *flawedSet) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	snaps, err := s.Pending.Commit(s.p.context(ctx))
	if err != nil {
		return nil, err
	}
	var out []snapshot.Snapshot
	var own []*flawedSnapshot
	for i, one := range snaps {
		fs := &flawedSnapshot{Snapshot: one, set: s, live: s.targets[i].Volume.Source}
		own = append(own, fs)
		out = append(out, fs)
	}
	s.snaps = own
	if s.p.f.taken != nil {
		s.p.f.taken(s.p, own)
	}
	s.p.mu.Lock()
	s.p.snaps = append(s.p.snaps, own...)
	s.p.mu.Unlock()
	return out, nil
}

func (s *flawedSet) Abort(ctx context.Context) error {
	if err := s.Pending.Abort(s.p.context(ctx)); err != nil || s.p.f.abort == nil {
		return err
	}
	return s.p.f.abort(s)
}

func (s *flawedSet) releaseAll() error {
	for _, one := range s.snaps {
		if err := one.Snapshot.Release(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

type flawedSnapshot struct {
	snapshot.Snapshot
	set             *flawedSet
	live            string
	roots, releases int
	own             *os.File
}

func (s *flawedSnapshot) Root() string {
	s.roots++
	if s.set.p.f.root != nil {
		s.set.p.f.root(s, s.roots)
	}
	if s.set.p.f.path != nil {
		return s.set.p.f.path(s)
	}
	return s.Snapshot.Root()
}

func (s *flawedSnapshot) Volume() volume.ID {
	if s.set.p.f.volume != nil {
		return s.set.p.f.volume(s)
	}
	return s.Snapshot.Volume()
}

func (s *flawedSnapshot) Parts() []snapshot.Part {
	if s.set.p.f.parts != nil {
		return s.set.p.f.parts(s.Snapshot.Parts())
	}
	return s.Snapshot.Parts()
}

func (s *flawedSnapshot) Err() error {
	if s.set.p.f.err != nil {
		return s.set.p.f.err(s.Snapshot.Err())
	}
	return s.Snapshot.Err()
}

func (s *flawedSnapshot) Release(ctx context.Context) error {
	if ctx.Err() == nil || s.set.p.f.context {
		s.releases++
		if s.own != nil {
			s.own.Close()
		}
		if s.set.p.f.release != nil {
			if done, err := s.set.p.f.release(s, s.releases); done || err != nil {
				return err
			}
		}
	}
	return s.Snapshot.Release(s.set.p.context(ctx))
}

// refresh makes a path of the copy what it is on the live volume.
func (s *flawedSnapshot) refresh(rel string) {
	from, to := filepath.Join(s.live, rel), filepath.Join(s.Snapshot.Root(), rel)
	if _, err := os.Lstat(from); err != nil {
		return
	}
	if err := os.RemoveAll(to); err != nil {
		panic(err)
	}
	v := fake.Volume(s.live)
	store, err := os.MkdirTemp("", "flaw")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(store)
	pending, err := fake.New(store, fake.Options{Gate: s.set.p.gate}).Prepare(context.Background(), "refresh", []snapshot.Target{{Volume: v, Paths: []string{rel}}})
	if err != nil {
		panic(err)
	}
	snaps, err := pending.Commit(context.Background())
	if err != nil {
		panic(err)
	}
	if err := os.Rename(filepath.Join(snaps[0].Root(), rel), to); err != nil {
		panic(err)
	}
	_ = snaps[0].Release(context.Background())
}

func separate(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	_ = os.Remove(path)
	if err := os.WriteFile(path, b, st.Mode()); err != nil {
		return err
	}
	_ = syscall.Setxattr(path, "user.one", []byte("1"), 0)
	return os.Chtimes(path, st.ModTime(), st.ModTime())
}

func fillHoles(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0); err != nil {
		return err
	}
	return os.Chtimes(path, st.ModTime(), st.ModTime())
}

func changeKeepingTime(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("?"), 100); err != nil {
		return err
	}
	return os.Chtimes(path, st.ModTime(), st.ModTime())
}

func loseWhenSelected(_ *flawed, snaps []*flawedSnapshot) {
	for _, s := range snaps {
		if s.set.targets[0].Paths[0] != "." {
			_ = os.RemoveAll(filepath.Join(s.Snapshot.Root(), "dir/deep/deeper"))
		}
	}
}

// goOn lets the writers go on for a while, in the middle of Commit.
func goOn(s *flawedSnapshot) {
	_ = s.set.Pending.Resume(context.Background())
	time.Sleep(30 * time.Millisecond)
}

// tear makes some of the copy later than the rest.
func tear(_ *flawed, snaps []*flawedSnapshot) {
	goOn(snaps[0])
	for _, s := range snaps {
		s.refresh("writer0/slots")
	}
}

// later copies all volumes but the first again.
func later(_ *flawed, snaps []*flawedSnapshot) {
	goOn(snaps[0])
	for _, s := range snaps[1:] {
		for i := range writersPerVolume {
			s.refresh(fmt.Sprint("writer", i))
		}
	}
}

// early loses the last that was written.
func early(_ *flawed, snaps []*flawedSnapshot) {
	for _, s := range snaps {
		if fi, err := os.Stat(filepath.Join(s.Snapshot.Root(), "writer0/log")); err == nil {
			_ = os.Truncate(filepath.Join(s.Snapshot.Root(), "writer0/log"), max(fi.Size()-2*recordSize, 0))
		}
	}
}

func changeSecond(s *flawedSnapshot, asked int) {
	if asked == 2 {
		f, err := os.OpenFile(filepath.Join(s.Snapshot.Root(), "writer0/log"), os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, _ = f.WriteString("more")
			f.Close()
		}
	}
}

func ownPath(s *flawedSnapshot) string {
	if s.own == nil {
		var err error
		if s.own, err = os.Open(s.Snapshot.Root()); err != nil {
			return s.Snapshot.Root()
		}
	}
	return fmt.Sprintf("/proc/self/fd/%d", s.own.Fd())
}

func litter(s *flawedSnapshot, _ int) (bool, error) { return false, s.set.p.litter() }

func refreshOthers(p *flawed, snaps []*flawedSnapshot) {
	goOn(snaps[0])
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.snaps {
		if _, err := os.Stat(s.Snapshot.Root()); err == nil {
			s.refresh("file")
		}
	}
}

func onlyOnce(_ *flawedSnapshot, asked int) (bool, error) {
	if asked > 1 {
		return true, fs.ErrNotExist
	}
	return false, nil
}

func busyWhenOpen(s *flawedSnapshot, _ int) (bool, error) {
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, s.Snapshot.Root()) {
			return true, syscall.EBUSY
		}
	}
	return false, nil
}

func another(p *flawed, _ string, ts []snapshot.Target, err error) (snapshot.Pending, error) {
	if problem.CodeOf(err) != problem.Busy {
		return nil, err
	}
	return p.Provider.Prepare(context.Background(), newID(), ts)
}

func livingToo(p *flawed, left []snapshot.Snapshot, err error) ([]snapshot.Snapshot, error) {
	names, _ := filepath.Glob(p.store + "/*.set")
	for range max(len(names)-len(left), 0) {
		left = append(left, nowhere{})
	}
	return left, err
}

type nowhere struct{ snapshot.Snapshot }

func (nowhere) ID() string                    { return "nowhere" }
func (nowhere) Err() error                    { return problem.Newf(problem.SnapshotLost, "", "gone") }
func (nowhere) Release(context.Context) error { return nil }

func removeForeign(p *flawed, left []snapshot.Snapshot, err error) ([]snapshot.Snapshot, error) {
	names, _ := filepath.Glob(p.store + "/like-*")
	for _, n := range names {
		_ = os.Remove(n)
	}
	return left, err
}
