package snapshottest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// A flaw is one thing that a provider does wrong. The hooks that are nil do
// right.
type flaw struct {
	fails string // the checks that must notice, and no other
	slow  bool   // the slow checks are run, too, that it does not fail

	taken    func(p *flawed, snaps []*flawedSnapshot)         // after Commit
	root     func(s *flawedSnapshot, asked int)               // before each Root
	path     func(s *flawedSnapshot) string                   // Root
	volume   func(s *flawedSnapshot) volume.ID                // Volume
	parts    func(ps []snapshot.Part) []snapshot.Part         // Parts
	err      func(err error) error                            // Err
	release  func(s *flawedSnapshot, asked int) (bool, error) // Release; true if it is all that is done
	abort    func(s *flawedSet) error                         // after Abort
	prepare  func(p *flawed, id string, ts []snapshot.Target, err error) (snapshot.Pending, error)
	refuse   func(err error) error // Check and Prepare
	leftover func(p *flawed, left []snapshot.Snapshot, err error) ([]snapshot.Snapshot, error)
	item     func(i *snapshot.Item) // what is read directly
	context  bool                   // contexts that are over are taken
}

// allLater are all checks of changes.
func allLater() string {
	var names []string
	for _, k := range changeChecks() {
		names = append(names, k.name)
	}
	return strings.Join(names, " ")
}

func flaws() map[string]flaw {
	in := func(rel string, do func(path string) error) func(*flawed, []*flawedSnapshot) {
		return func(_ *flawed, snaps []*flawedSnapshot) {
			for _, s := range snaps {
				if err := do(filepath.Join(s.Snapshot.Root(), rel)); err != nil && !os.IsNotExist(err) {
					panic(err)
				}
			}
		}
	}
	remove := os.Remove
	return map[string]flaw{
		"none":                    {slow: true},
		"reads directly":          {item: func(*snapshot.Item) {}},
		"reads other attributes":  {fails: "leaves-nothing state selected-paths", item: func(i *snapshot.Item) { i.Info.Mode &^= 0o4000 }},
		"reads another file":      {fails: "leaves-nothing state", item: otherContent},
		"loses a file":            {fails: "state", taken: in("dir/link", remove)},
		"loses a special file":    {fails: "state", taken: in("fifo", remove)},
		"loses xattrs":            {fails: "state", taken: in("plain", func(p string) error { return syscall.Removexattr(p, "user.one") })},
		"loses ACLs":              {fails: "state selected-paths", taken: in("small", func(p string) error { return syscall.Removexattr(p, "system.posix_acl_access") })},
		"loses nanoseconds":       {fails: "state", taken: in("plain", func(p string) error { return os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0)) })},
		"loses set-user-id":       {fails: "state selected-paths", taken: in("small", func(p string) error { return os.Chmod(p, 0o751) })},
		"loses the sticky bit":    {fails: "state", taken: in("empty", func(p string) error { return os.Chmod(p, 0o777) })},
		"parts hard links":        {fails: "state", taken: in("dir/link", separate)},
		"fills holes":             {fails: "state", taken: in("sparse", fillHoles)},
		"follows symlinks":        {fails: "state", taken: in("dir/symlink", func(p string) error { _ = os.Remove(p); return os.WriteFile(p, nil, 0o644) })},
		"changes content":         {fails: "state selected-paths", taken: in("dir/deep/deeper/file", changeKeepingTime)},
		"adds a file":             {fails: "state", taken: in("added", func(p string) error { return os.WriteFile(p, nil, 0o600) })},
		"shows only files":        {fails: "selected-paths", taken: loseWhenSelected},
		"shows the live volume":   {fails: allLater(), root: func(s *flawedSnapshot, asked int) { s.refresh("changes") }},
		"copies slowly":           {fails: "prefix prefix-of-set prefix-not-durable", taken: tear},
		"copies one by one":       {fails: "prefix-of-set", taken: later},
		"copies in Prepare":       {fails: "prefix prefix-of-set prefix-not-durable", taken: early},
		"changes while read":      {fails: "two-readings", root: changeSecond},
		"is for itself":           {fails: "other-process", path: ownPath},
		"copies what is mounted":  {fails: "mounts-below", taken: in("point", func(p string) error { return os.WriteFile(p+"/other", nil, 0o600) })},
		"mixes up volumes":        {fails: "names", volume: func(*flawedSnapshot) volume.ID { return "other" }},
		"says a wrong time":       {fails: "instant", parts: func(ps []snapshot.Part) []snapshot.Part { ps[0].Taken = ps[0].Taken.Add(-time.Hour); return ps }},
		"says a wrong part":       {fails: "instant", parts: func(ps []snapshot.Part) []snapshot.Part { ps[0].Volume = "other"; return ps }},
		"leaves something":        {fails: "abort abort-during-commit dead-context leaves-nothing living open-reader release-one-by-one same-id two-sets", release: litter},
		"aborts by halves":        {fails: "abort abort-during-commit", abort: func(s *flawedSet) error { return s.p.litter() }},
		"aborts what is done":     {fails: "abort abort-during-commit", abort: func(s *flawedSet) error { return s.releaseAll() }},
		"has one set only":        {fails: "two-sets", taken: refreshOthers},
		"releases all at once":    {fails: "release-one-by-one killed", release: func(s *flawedSnapshot, _ int) (bool, error) { return false, s.set.releaseAll() }},
		"releases once":           {fails: "release-twice", release: onlyOnce},
		"is busy while read":      {fails: "open-reader", release: busyWhenOpen},
		"is always good":          {fails: "released-is-not-good", err: func(error) error { return nil }},
		"is never good":           {fails: "abort abort-during-commit dead-context prefix prefix-not-durable prefix-of-set release-one-by-one released-is-not-good same-id state two-sets " + allLater(), slow: true, err: func(error) error { return problem.Newf(problem.SnapshotFailed, "", "never") }},
		"refuses without a code":  {fails: "refusal-has-code", refuse: func(err error) error { return fmt.Errorf("%s", err) }},
		"refuses nothing":         {fails: "refusal-has-code", refuse: func(error) error { return nil }},
		"ignores contexts":        {fails: "abort dead-context", context: true},
		"takes an id twice":       {fails: "same-id", prepare: another},
		"finds no leftovers":      {fails: "exited killed look-alike", leftover: func(*flawed, []snapshot.Snapshot, error) ([]snapshot.Snapshot, error) { return nil, nil }},
		"takes all for leftovers": {fails: "living", leftover: livingToo},
		"touches what is foreign": {fails: "look-alike", leftover: removeForeign},
		"hides what is foreign":   {fails: "look-alike", leftover: func(_ *flawed, l []snapshot.Snapshot, _ error) ([]snapshot.Snapshot, error) { return l, nil }},
	}
}

// slow tells whether a check takes long, by running writers or processes. Of the
// many checks of changes a few stand for all, since they go the same way.
func (k check) slow() bool {
	switch k.name {
	case "prefix", "prefix-of-set", "prefix-not-durable", "two-readings", "killed", "exited", "living", "look-alike":
		return true
	case "later-append", "later-unlink", "later-map-before":
		return false
	}
	return strings.HasPrefix(k.name, "later-")
}

const (
	flawVariable  = "STILLPOINT_TEST_FLAW"
	storeVariable = "STILLPOINT_TEST_STORE"
)

// Each flaw is noticed by the checks that are for it, and by no other.
func TestFlaws(t *testing.T) {
	if inChild() {
		Run(t, flawedHost(os.Getenv(flawVariable), os.Getenv(storeVariable)))
		return
	}
	for name, f := range flaws() {
		t.Run(name, func(t *testing.T) {
			if f.slow && testing.Short() {
				t.Skip("skipped: slow, and -short was asked for")
			}
			testFlaw(t, name, f)
		})
	}
}

func testFlaw(t *testing.T, name string, f flaw) {
	expected := append(strings.Fields(f.fails), "read-only") // which the fake never is
	for _, k := range checks() {
		if k.slow() && !f.slow && !slices.Contains(expected, k.name) {
			continue
		}
		failures := record(t, func(tb testing.TB) { k.on(tb, flawedHost(name, tb.TempDir())) })
		switch want := slices.Contains(expected, k.name); {
		case want && len(failures) == 0:
			if os.Geteuid() != 0 && (k.name == "mounts-below" || k.name == "later-chown") {
				continue // not seen without root
			}
			t.Errorf("%s does not notice", k.name)
		case !want && len(failures) > 0:
			t.Errorf("%s fails: %s", k.name, failures[0])
		}
	}
}

func flawedHost(name, store string) Host {
	f := flaws()[name]
	gate := &fake.Gate{}
	base := func() *fake.Provider { return fake.New(store, fake.Options{Gate: gate}) }
	return Host{
		New: func(tb testing.TB) snapshot.Provider {
			return &flawed{Provider: base(), f: f, store: store, gate: gate}
		},
		Volumes: func(tb testing.TB, n int) []Volume {
			var vs []Volume
			for range n {
				dir := tb.TempDir()
				vs = append(vs, Volume{dir, fake.Volume(dir)})
			}
			return vs
		},
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "far", Kind: volume.Network, Mounts: []volume.Mount{{Point: "/none", Root: "/"}}}
		},
		State: func(tb testing.TB, _ []Volume) string {
			names, err := os.ReadDir(store)
			if err != nil {
				tb.Fatal(err)
			}
			return fmt.Sprint(names)
		},
		LookAlike: func(tb testing.TB, _ Volume, id string) func() string {
			file := filepath.Join(store, "like-"+id)
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() { os.Remove(file) })
			return func() string {
				if _, err := os.Stat(file); err != nil {
					return err.Error()
				}
				return ""
			}
		},
		Write:    gate.Write,
		Env:      []string{flawVariable + "=" + name, storeVariable + "=" + store},
		Captures: 2,
	}
}
