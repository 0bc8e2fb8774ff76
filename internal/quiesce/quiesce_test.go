package quiesce

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
	"stillpoint/internal/writer"
)

// An app is a writer with one instance, which fails as it is told.
type app struct {
	name    string
	paths   []string
	checks  error
	freezes []error // of one attempt after the other; then nil
	thaws   []error

	scope  writer.Scope
	mu     sync.Mutex
	frozen int
}

func (a *app) Name() string { return a.name }
func (a *app) Discover(_ context.Context, s writer.Scope) ([]writer.Instance, error) {
	a.scope = s
	return []writer.Instance{a}, nil
}
func (a *app) About() writer.About {
	return writer.About{ID: a.name + ":1", Writer: a.name, Version: "7", Paths: a.paths}
}
func (a *app) Check(context.Context) error                                  { return a.checks }
func (a *app) Prepare(context.Context, writer.Need) (writer.Session, error) { return a, nil }

func next(errs *[]error) (err error) {
	if len(*errs) > 0 {
		err, *errs = (*errs)[0], (*errs)[1:]
	}
	return err
}

func (a *app) Freeze(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frozen++
	return next(&a.freezes)
}

func (a *app) Thaw(context.Context) ([]writer.Note, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return nil, next(&a.thaws)
}

// A provider whose snapshots are nothing.
type provider struct {
	snapshot.Provider
	err error // of Commit
}

func (p provider) Name() string { return "nothing" }
func (p provider) Prepare(context.Context, string, []snapshot.Target) (snapshot.Pending, error) {
	return pending{p: p}, nil
}

type pending struct {
	snapshot.Pending
	p provider
}

func (pending) Instants() int                                         { return 1 }
func (pending) Suspends() bool                                        { return true }
func (pending) Hold(context.Context) error                            { return nil }
func (pending) Resume(context.Context) error                          { return nil }
func (pending) Abort(context.Context) error                           { return nil }
func (s pending) Commit(context.Context) ([]snapshot.Snapshot, error) { return nil, s.p.err }

// selection is /srv on one volume and /data on another one; /other is neither
// selected nor taken.
var selection = Selection{Paths: []string{"/data", "/srv"}, Mounts: []string{"/srv/inner"}, Volume: func(path string) (string, bool) {
	for id, dir := range map[string]string{"a": "/srv", "b": "/data"} {
		if within(dir, path) {
			return id, true
		}
	}
	return "root", false
}}

var (
	errPasses = problem.Newf(problem.WriterTimeout, "", "too slow")
	errStays  = problem.Newf(problem.WriterFailed, "", "never")
)

func take(t *testing.T, s Settings, p provider) (a *Applications, events []Event, took time.Duration, err error) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a, err = Find(t.Context(), s, selection, func(e Event) { events = append(events, e) })
		if err == nil {
			_, err = a.Take(t.Context(), coordinator.Plan{ID: "j", Groups: []coordinator.Group{{Provider: p, Targets: []snapshot.Target{{Volume: volume.Volume{ID: "a"}}}}}})
		}
		took = time.Since(began)
	})
	return a, events, took, err
}

// What fails is tried again, or not, and then treated as the policy says.
func TestPolicies(t *testing.T) {
	again := []error{errPasses, errPasses, errPasses, errPasses, errPasses}
	for name, tt := range map[string]*struct {
		app      app
		policy   Policy
		provider error
		code     problem.Code // of the failure
		treated  Policy
		attempts int
		waited   time.Duration
	}{
		"well":                 {app: app{paths: []string{"/srv/db"}}, attempts: 1},
		"passes":               {app: app{paths: []string{"/srv/db"}, freezes: again[:2]}, attempts: 3, waited: 2 * Wait},
		"passes at the thaw":   {app: app{paths: []string{"/srv/db"}, thaws: again[:1]}, attempts: 2, waited: Wait},
		"does not pass":        {app: app{paths: []string{"/srv/db"}, freezes: again}, treated: Crash, attempts: 4, waited: 3 * Wait},
		"stays":                {app: app{paths: []string{"/srv/db"}, freezes: []error{errStays}}, treated: Crash, attempts: 1},
		"stays, to fail":       {app: app{paths: []string{"/srv/db"}, freezes: []error{errStays}}, policy: Fail, code: problem.WriterFailed, treated: Fail, attempts: 1},
		"stays, left out":      {app: app{paths: []string{"/srv/db"}, freezes: []error{errStays}}, policy: Exclude, treated: Exclude, attempts: 1},
		"stays, two volumes":   {app: app{paths: []string{"/srv/db", "/data/wal"}, freezes: []error{errStays}}, code: problem.WriterFailed, treated: Fail, attempts: 1},
		"stays, not all of it": {app: app{paths: []string{"/srv/db", "/other/wal"}, freezes: []error{errStays}}, code: problem.WriterFailed, treated: Fail, attempts: 1},
		"cannot":               {app: app{paths: []string{"/srv/db"}, checks: errStays}, treated: Crash},
		"cannot, to fail":      {app: app{paths: []string{"/srv/db"}, checks: errStays}, policy: Fail, code: problem.WriterFailed, treated: Fail},
		"cannot just now":      {app: app{paths: []string{"/srv/db"}, checks: errPasses}, attempts: 1},
		"not its fault":        {app: app{paths: []string{"/srv/db"}}, provider: problem.Newf(problem.CacheFull, "", "full"), code: problem.CacheFull, attempts: 1},
		"above what is taken":  {app: app{paths: []string{"/"}, freezes: []error{errStays}}, code: problem.WriterFailed, treated: Fail, attempts: 1},
	} {
		tt.app.name = "db"
		s := Settings{Writers: []writer.Writer{&tt.app}, Policies: map[string]Policy{"db": tt.policy}, Retries: Retries, Wait: Wait}
		a, events, took, err := take(t, s, provider{err: tt.provider})
		if problem.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := a.All[0]
		if got.Treated != tt.treated || got.Attempts != tt.attempts || took != tt.waited {
			t.Errorf("%s: treated %q after %d attempts in %v, want %q, %d, %v\n%+v", name, got.Treated, got.Attempts, took, tt.treated, tt.attempts, tt.waited, events)
		}
		if err == nil && a.AtRest() != (tt.treated == "") {
			t.Errorf("%s: at rest %t", name, a.AtRest())
		}
		if excluded := a.Excluded(); (tt.treated == Exclude) != slices.Equal(excluded, tt.app.paths) {
			t.Errorf("%s: excluded %q", name, excluded)
		}
		if req := a.Require(); tt.attempts == 0 && !problem.Is(req, problem.NotApplication) {
			t.Errorf("%s: required: %v", name, req)
		}
		if (tt.attempts > 1 || tt.treated != "") && !slices.ContainsFunc(events, func(e Event) bool { return e.Err != nil && e.Application == "db:1" }) && tt.treated != Fail {
			t.Errorf("%s: nobody was told: %+v", name, events)
		}
	}
}

// An application whose selected files are read live rests for nothing: its policy
// decides.
func TestLive(t *testing.T) {
	live := selection
	live.Live = func(path string) bool { return within("/data", path) || within("/other", path) }
	live.Volume = func(path string) (string, bool) {
		id, taken := selection.Volume(path)
		return id, taken && !live.Live(path)
	}
	for _, tt := range []struct {
		paths   []string
		policy  Policy
		treated Policy
		code    problem.Code
	}{
		{paths: []string{"/srv/db"}},
		{paths: []string{"/srv/db", "/other/wal"}}, // not selected
		{paths: []string{"/data/db"}, treated: Fail, code: problem.NotApplication},
		{paths: []string{"/srv/db", "/data/wal"}, policy: Crash, treated: Crash},
		{paths: []string{"/data/db"}, policy: Exclude, treated: Exclude},
	} {
		db := &app{name: "db", paths: tt.paths}
		a, err := Find(t.Context(), Settings{Writers: []writer.Writer{db}, Policies: map[string]Policy{"db": tt.policy}}, live, func(Event) {})
		if problem.CodeOf(err) != tt.code || a.All[0].Treated != tt.treated {
			t.Errorf("%q: treated %q, %v", tt.paths, a.All[0].Treated, err)
		}
		if req := a.Require(); (tt.treated == "") != (req == nil) {
			t.Errorf("%q: required: %v", tt.paths, req)
		}
	}
}

// Applications that have nothing in the selection are none of its, and those
// that are left have their own attempts.
func TestSeveral(t *testing.T) {
	far := &app{name: "far", paths: []string{"/other/db"}}
	bad := &app{name: "bad", paths: []string{"/srv/bad"}, freezes: []error{errStays}}
	slow := &app{name: "slow", paths: []string{"/data/slow"}, freezes: []error{nil, errPasses, errPasses, errPasses}}
	s := Settings{Writers: []writer.Writer{far, bad, slow}, Retries: Retries, Wait: Wait}
	a, events, _, err := take(t, s, provider{})
	if err != nil {
		t.Fatalf("%v\n%+v", err, events)
	}
	var ids []string
	for _, app := range a.All {
		ids = append(ids, app.ID)
	}
	if got := strings.Join(ids, " "); got != "bad:1 slow:1" || far.frozen != 0 {
		t.Errorf("found %s; far was frozen %d times", got, far.frozen)
	}
	if !slices.Equal(slow.scope.Paths, []string{"/data", "/srv", "/srv/inner"}) {
		t.Errorf("asked about %q", slow.scope.Paths)
	}
	if a.All[0].Treated != Crash || !a.All[1].AtRest() || a.AtRest() {
		t.Errorf("%+v\n%+v", a.All[0], a.All[1])
	}
}

// Who listens where a database could, and never answers, holds nobody up.
func TestMute(t *testing.T) {
	mute := &muteApp{&app{name: "mute"}}
	_, events, took, err := take(t, Settings{Writers: []writer.Writer{mute, &app{name: "x", paths: []string{"/srv/x"}}}}, provider{})
	if err != nil || took > asking {
		t.Errorf("%v after %s", err, took)
	}
	if !slices.ContainsFunc(events, func(e Event) bool {
		return e.Application == "mute:1" && problem.CodeOf(e.Err) == problem.WriterTimeout && strings.Contains(e.Text, "nobody can say")
	}) {
		t.Errorf("%+v", events)
	}
}

// A muteApp does not answer, nor say where its files are.
type muteApp struct{ *app }

func (a *muteApp) Discover(context.Context, writer.Scope) ([]writer.Instance, error) {
	return []writer.Instance{a}, nil
}

func (*muteApp) Check(ctx context.Context) error {
	<-ctx.Done()
	return problem.New(problem.WriterTimeout, "", ctx.Err())
}

// Where not all could be looked for, it is not known that all were at rest.
func TestMissed(t *testing.T) {
	db := &app{name: "db", paths: []string{"/srv/db"}}
	s := Settings{Writers: []writer.Writer{db, failing{db}}}
	a, events, _, err := take(t, s, provider{})
	if err != nil || a.AtRest() || !problem.Is(a.Require(), problem.NotApplication) {
		t.Errorf("%v, at rest %t, %v", err, a.AtRest(), a.Require())
	}
	if !slices.ContainsFunc(events, func(e Event) bool { return problem.Is(e.Err, problem.WriterTimeout) }) {
		t.Errorf("%+v", events)
	}
	// Nor of one volume.
	if on := a.On("a"); len(on.All) != 1 || on.AtRest() {
		t.Errorf("on its volume: %+v, at rest %t", on.All, on.AtRest())
	}
	if on := a.On("b"); len(on.All) != 0 || on.None() {
		t.Errorf("on another volume: %+v, none %t", on.All, on.None())
	}
}

// Who looks for applications on a disk that does not answer is left behind.
func TestLookedForInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := deafApp{&app{name: "deaf"}, make(chan struct{})}
		defer close(deaf.wakes)
		for _, limit := range []time.Duration{time.Minute, time.Hour} { // the caller's, and ours
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			all, err := List(ctx, Settings{Writers: []writer.Writer{deaf, &app{name: "x", paths: []string{"/srv/x"}}}}, selection)
			if !problem.Is(err, problem.WriterTimeout) || len(all) != 1 || all[0].ID != "x:1" {
				t.Errorf("%+v, %v", all, err)
			}
			if took := time.Since(began); took != min(limit, discovering)+leaving {
				t.Errorf("it took %s", took)
			}
		}
	})
}

// A deafApp does not come back from looking.
type deafApp struct {
	*app
	wakes chan struct{}
}

func (a deafApp) Discover(context.Context, writer.Scope) ([]writer.Instance, error) {
	<-a.wakes
	return nil, nil
}

// A failing writer finds nothing.
type failing struct{ *app }

func (failing) Discover(context.Context, writer.Scope) ([]writer.Instance, error) {
	return nil, errPasses
}

// None is not all.
func TestNone(t *testing.T) {
	a, _, _, err := take(t, Settings{}, provider{})
	if err != nil || a.AtRest() || !problem.Is(a.Require(), problem.NotApplication) {
		t.Errorf("%v, %t, %v", err, a.AtRest(), a.Require())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	db := &app{name: "db", paths: []string{"/srv/db"}, freezes: []error{errPasses}}
	f, err := Find(t.Context(), Settings{Writers: []writer.Writer{db}, Retries: 3, Wait: time.Hour}, selection, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Take(ctx, coordinator.Plan{ID: "j"}); err == nil || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
