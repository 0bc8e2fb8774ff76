package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
	"stillpoint/internal/writer"
)

// The limits of the tests. No application may rest longer than testWindow.
const (
	testWindow = 20 * time.Second
	testHold   = 10 * time.Second
	testUndo   = time.Minute
)

// A host counts what is held and makes its n-th step go wrong in some way.
type host struct {
	at     int    // the step that goes wrong
	wrong  string // or its name
	how    string // fail, hang, cancel, deaf
	cancel context.CancelFunc
	lost   error // what the snapshots say as soon as they are taken

	mu     sync.Mutex
	n      int
	trace  []string
	held   map[string]bool
	frozen map[string]time.Time // since when an application rests
	longer time.Duration        // the longest rest of an application
	since  map[string]time.Time // since when writes are suspended
	kept   time.Duration        // the longest that they were
	hushed bool
}

func newHost() *host {
	return &host{held: map[string]bool{}, frozen: map[string]time.Time{}, since: map[string]time.Time{}}
}

var errPlanted = errors.New("planted")

// step is a call of ours that the host sees.
func (h *host) step(ctx context.Context, what string) error {
	h.mu.Lock()
	h.n++
	n := h.n
	h.trace = append(h.trace, what)
	h.mu.Unlock()
	if n != h.at && what != h.wrong {
		return ctx.Err()
	}
	switch h.how {
	case "fail":
		return errPlanted
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "deaf": // a system call that no signal and no context ends
		time.Sleep(time.Hour)
	case "cancel":
		h.cancel()
		return ctx.Err()
	}
	return nil
}

func (h *host) hold(what string) { h.mu.Lock(); h.held[what] = true; h.mu.Unlock() }
func (h *host) let(what string)  { h.mu.Lock(); delete(h.held, what); h.mu.Unlock() }

// A provider of the host.
type provider struct {
	snapshot.Provider
	h        *host
	name     string
	suspends bool
}

func (p provider) Name() string { return p.name }

func (p provider) Prepare(ctx context.Context, _ string, ts []snapshot.Target) (snapshot.Pending, error) {
	if err := p.h.step(ctx, "prepare "+p.name); err != nil {
		return nil, err
	}
	p.h.hold("pending " + p.name)
	return &set{p: p, ts: ts}, nil
}

type set struct {
	p  provider
	ts []snapshot.Target

	mu        sync.Mutex
	committed bool
}

func (s *set) Instants() int  { return len(s.ts) }
func (s *set) Suspends() bool { return s.p.suspends }

func (s *set) Ready(ctx context.Context) error { return s.p.h.step(ctx, "get ready "+s.p.name) }

// Hold suspends writes also when it then fails or comes late, as a freeze does
// that cannot be cancelled.
func (s *set) Hold(ctx context.Context) error {
	err := s.p.h.step(ctx, "hold "+s.p.name)
	if s.p.suspends {
		s.p.h.mu.Lock()
		s.p.h.held["hold "+s.p.name] = true
		s.p.h.since[s.p.name] = time.Now()
		s.p.h.mu.Unlock()
	}
	return err
}

func (s *set) Resume(ctx context.Context) error {
	err := s.p.h.step(ctx, "resume "+s.p.name)
	if err != nil {
		return err
	}
	s.p.h.mu.Lock()
	defer s.p.h.mu.Unlock()
	if at, ok := s.p.h.since[s.p.name]; ok {
		s.p.h.kept = max(s.p.h.kept, time.Since(at))
		delete(s.p.h.since, s.p.name)
	}
	delete(s.p.h.held, "hold "+s.p.name)
	return nil
}

func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	if err := s.p.h.step(ctx, "commit "+s.p.name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committed = true
	s.p.h.let("pending " + s.p.name)
	var all []snapshot.Snapshot
	for i, t := range s.ts {
		s.p.h.hold("snapshot " + string(t.Volume.ID))
		at := time.Now()
		if !s.p.suspends {
			at = at.Add(time.Duration(i) * time.Millisecond)
		}
		all = append(all, &taken{h: s.p.h, id: t.Volume.ID, at: at, frozen: s.p.suspends})
	}
	return all, nil
}

func (s *set) Abort(ctx context.Context) error {
	s.mu.Lock()
	committed := s.committed
	s.mu.Unlock()
	if err := s.p.h.step(ctx, "abort "+s.p.name); err != nil || committed {
		return err
	}
	s.p.h.let("pending " + s.p.name)
	return nil
}

type taken struct {
	snapshot.Snapshot
	h      *host
	id     volume.ID
	at     time.Time
	frozen bool
}

func (s *taken) ID() string        { return string(s.id) }
func (s *taken) Volume() volume.ID { return s.id }
func (s *taken) Err() error        { return s.h.lost }
func (s *taken) Parts() []snapshot.Part {
	if s.h.lost != nil {
		return nil
	}
	return []snapshot.Part{{Path: ".", Volume: s.id, Taken: s.at, Frozen: s.frozen}}
}
func (s *taken) Release(ctx context.Context) error {
	if err := s.h.step(ctx, "release "+string(s.id)); err != nil {
		return err
	}
	s.h.let("snapshot " + string(s.id))
	return nil
}

// An application of the host.
type application struct {
	writer.Instance
	h    *host
	name string
}

func (a application) About() writer.About { return writer.About{ID: a.name} }

func (a application) Prepare(ctx context.Context, _ writer.Need) (writer.Session, error) {
	if err := a.h.step(ctx, "ready "+a.name); err != nil {
		return nil, err
	}
	a.h.hold("session " + a.name)
	return a, nil
}

// Freeze has begun to bring the application to rest also when it fails or hangs.
func (a application) Freeze(ctx context.Context) error {
	a.h.mu.Lock()
	if a.h.held["session "+a.name] { // else it was overtaken by a thaw
		a.h.frozen[a.name] = time.Now()
	}
	a.h.mu.Unlock()
	return a.h.step(ctx, "freeze "+a.name)
}

func (a application) Thaw(ctx context.Context) ([]writer.Note, error) {
	a.h.mu.Lock()
	if at, ok := a.h.frozen[a.name]; ok {
		a.h.longer = max(a.h.longer, time.Since(at))
		delete(a.h.frozen, a.name)
	}
	a.h.mu.Unlock()
	over := ctx.Err()
	err := a.h.step(ctx, "thaw "+a.name)
	if over != nil {
		return nil, over // nothing can be done with a context that is over
	}
	a.h.let("session " + a.name) // also where it failed: its connection is closed
	if err != nil {
		return nil, err
	}
	return []writer.Note{{Path: "/" + a.name + "/note"}}, nil
}

func target(id volume.ID) snapshot.Target { return snapshot.Target{Volume: volume.Volume{ID: id}} }

func (h *host) plan() Plan {
	return Plan{
		ID: "j1",
		Groups: []Group{
			{provider{h: h, name: "cow", suspends: true}, []snapshot.Target{target("a"), target("b")}},
			{provider{h: h, name: "btrfs"}, []snapshot.Target{target("c")}},
		},
		Instances: []Resting{{Instance: application{h: h, name: "pg"}}, {Instance: application{h: h, name: "redis"}}},
		Quiet:     func(ctx context.Context) error { return h.step(ctx, "quiet") },
		Hush:      func(on bool) { h.hushed = on },
		Intend:    func(g Group) error { return h.step(context.Background(), "intend "+g.Provider.Name()) },
		Limits:    Limits{Window: testWindow, Hold: testHold, Undo: testUndo, Prepare: time.Minute},
	}
}

// run takes a capture of which one step goes wrong, and looks at what is left
// when all has come back.
func run(t *testing.T, at int, how string, change func(*Plan)) (h *host, steps int) {
	h = newHost()
	h.at, h.how = at, how
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // somebody loses patience
		defer cancel()
		h.cancel = cancel
		p := h.plan()
		if change != nil {
			change(&p)
		}
		c, rests, err := Take(ctx, p)
		if (c == nil) != (err != nil) || len(rests) != len(p.Instances) {
			t.Errorf("capture %v, rests %v, error %v", c, rests, err)
		}
		h.mu.Lock()
		steps = h.n
		h.mu.Unlock()
		if c != nil {
			for _, s := range c.Snapshots {
				if err := s.Release(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}
		}
		if how == "fail" && at > 0 && !errors.Is(err, errPlanted) && !strings.HasPrefix(h.trace[at-1], "resume") {
			t.Errorf("Take says %v", err)
		}
		if err != nil && problem.CodeOf(err) == problem.Uncatalogued && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errPlanted) {
			t.Errorf("without a code: %v", err)
		}
		if h.hushed {
			t.Error("still hushed")
		}
		time.Sleep(3 * time.Hour) // let the deaf come back
	})
	if h.longer > testWindow {
		t.Errorf("an application rested for %v", h.longer)
	}
	if most := testHold + testUndo; h.kept > most && how != "deaf" {
		t.Errorf("writes were suspended for %v", h.kept)
	}
	return h, steps
}

// Every step of a good run is made to fail, to hang, to be cancelled and to go
// deaf: nothing rests, nothing is held, nothing is left.
func TestEveryStep(t *testing.T) {
	good, steps := run(t, 0, "", nil)
	want := "intend cow, prepare cow, intend btrfs, prepare btrfs"
	if got := strings.Join(good.trace, ", "); !strings.HasPrefix(got, want) {
		t.Fatalf("a good run: %s", got)
	}
	if len(good.held) > 0 {
		t.Fatalf("a good run leaves %v", good.held)
	}
	for at := 1; at <= steps; at++ {
		for _, how := range []string{"fail", "hang", "cancel", "deaf"} {
			if strings.HasPrefix(good.trace[at-1], "intend") && how != "fail" {
				continue
			}
			t.Run(fmt.Sprintf("%02d %s %s", at, good.trace[at-1], how), func(t *testing.T) {
				h, _ := run(t, at, how, nil)
				if len(h.held) > 0 {
					t.Errorf("left behind: %v\n%s", h.held, strings.Join(h.trace, "\n"))
				}
			})
		}
	}
}

// The one that cannot be held commits while all others are, and thaws come
// after the commits.
func TestOrder(t *testing.T) {
	h, _ := run(t, 0, "", nil)
	at := func(what string) int { return slices.Index(h.trace, what) }
	for _, pair := range [][2]string{
		{"ready pg", "quiet"}, {"quiet", "get ready cow"}, {"get ready btrfs", "freeze pg"}, {"freeze pg", "hold cow"}, {"freeze redis", "hold cow"},
		{"hold cow", "commit btrfs"}, {"commit btrfs", "commit cow"}, {"commit cow", "resume cow"}, {"commit cow", "thaw pg"},
	} {
		if a, b := at(pair[0]), at(pair[1]); a < 0 || b < 0 || a > b {
			t.Errorf("%s is not before %s: %s", pair[0], pair[1], strings.Join(h.trace, ", "))
		}
	}
}

// A snapshot of which nothing is known any more, by when all go on, is no snapshot, and
// neither are the others of its set.
func TestLost(t *testing.T) {
	for err, code := range map[error]problem.Code{
		errPlanted: problem.SnapshotLost,
		problem.Newf(problem.CacheFull, "", "no room"): problem.CacheFull,
	} {
		h := newHost()
		h.lost = err
		synctest.Test(t, func(t *testing.T) {
			c, _, got := Take(t.Context(), h.plan())
			if c != nil || problem.CodeOf(got) != code || !errors.Is(got, err) {
				t.Errorf("of snapshots that say %q: %v, %v", err, c, got)
			}
		})
		if len(h.held) > 0 {
			t.Errorf("left: %v", h.held)
		}
	}
}

// What a set says of its instants.
func TestInstants(t *testing.T) {
	two := func(p *Plan) { p.Groups[1].Targets = append(p.Groups[1].Targets, target("d")) }
	for _, tt := range []struct {
		change func(*Plan)
		one    bool
		skew   time.Duration
	}{
		{nil, true, 0},
		{two, false, time.Millisecond},
		{func(p *Plan) { p.Groups = p.Groups[:1] }, true, 0},
	} {
		h := newHost()
		synctest.Test(t, func(t *testing.T) {
			p := h.plan()
			if tt.change != nil {
				tt.change(&p)
			}
			c, _, err := Take(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if c.OneInstant != tt.one || c.Skew != tt.skew {
				t.Errorf("one instant: %t, skew %v; want %t, %v", c.OneInstant, c.Skew, tt.one, tt.skew)
			}
			if len(c.Notes) != 2 || c.Rests[0].State != writer.WaitingForStoring {
				t.Errorf("notes %v, rests %+v", c.Notes, c.Rests)
			}
		})
	}
	run(t, 0, "", nil)
	h := newHost()
	synctest.Test(t, func(t *testing.T) {
		p := h.plan()
		two(&p)
		p.OneInstant = true
		if _, _, err := Take(t.Context(), p); !problem.Is(err, problem.NotOneInstant) {
			t.Errorf("one instant was demanded: %v", err)
		}
	})
	if len(h.held) > 0 {
		t.Errorf("left: %v", h.held)
	}
}

// Each failure of a writer has a code, a class, and the state of the one whose
// it is.
func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		step, how string
		code      problem.Code
		class     writer.Class
		at        writer.Step
	}{
		{"ready pg", "fail", problem.WriterFailed, writer.NotRetryable, writer.AtPrepare},
		{"ready pg", "hang", problem.WriterTimeout, writer.TimedOut, writer.AtPrepare},
		{"freeze pg", "fail", problem.WriterFailed, writer.NotRetryable, writer.AtFreeze},
		{"freeze pg", "deaf", problem.WindowClosed, writer.TimedOut, ""},
		{"freeze pg", "hang", problem.WindowClosed, writer.TimedOut, ""},
		{"thaw pg", "fail", problem.WriterFailed, writer.NotRetryable, writer.AtThaw},
		{"thaw pg", "hang", problem.WriterTimeout, writer.TimedOut, writer.AtThaw},
	} {
		h := newHost()
		synctest.Test(t, func(t *testing.T) {
			h.wrong, h.how = tt.step, tt.how
			p := h.plan()
			p.Instances = p.Instances[:1]
			_, rests, err := Take(t.Context(), p)
			if problem.CodeOf(err) != tt.code || writer.ClassOf(err) != tt.class {
				t.Errorf("%s %s: %v: code %s, class %s", tt.step, tt.how, err, problem.CodeOf(err), writer.ClassOf(err))
			}
			var of *writer.Error
			if rests[0].State != writer.Failed || problem.CodeOf(rests[0].Err) != tt.code {
				t.Errorf("%s %s: %+v", tt.step, tt.how, rests[0])
			}
			if tt.at != "" && (!errors.As(err, &of) || of.Step != tt.at || of.ID != "pg" || rests[0].State != writer.Failed) {
				t.Errorf("%s %s: %+v, %+v", tt.step, tt.how, of, rests)
			}
			time.Sleep(3 * time.Hour)
		})
	}
}
