package snapshottest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
)

// A provider that leaves the volumes in a volume empty is noticed by all kinds of checks.
func TestFoldersLost(t *testing.T) {
	for _, name := range strings.Fields("state selected-paths instant other-process later-append prefix leaves-nothing") {
		failures := record(t, func(tb testing.TB) {
			for _, k := range checks() {
				if k.name == name {
					k.on(tb, forgetfulHost(tb.TempDir()))
				}
			}
		})
		if notices := len(failures) > 0; notices != (name != "leaves-nothing") {
			t.Errorf("%s: %v", name, failures)
		}
	}
}

// forgetfulHost has a provider that shows folders empty.
func forgetfulHost(store string) Host {
	h := flawedHost("none", store)
	var folders []string
	h.Folder = func(tb testing.TB, path string) {
		folders = append(folders, path)
		if err := os.Mkdir(path, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	forget := func(p *flawed, snaps []*flawedSnapshot) {
		for _, s := range snaps {
			for _, f := range folders {
				rel, err := filepath.Rel(s.live, f)
				if err != nil || strings.HasPrefix(rel, "..") {
					continue // of another volume
				}
				names, _ := filepath.Glob(filepath.Join(s.Snapshot.Root(), rel, "*"))
				for _, n := range names {
					if err := os.RemoveAll(n); err != nil {
						panic(err)
					}
				}
			}
		}
	}
	gate := &fake.Gate{}
	h.Write = gate.Write
	h.New = func(testing.TB) snapshot.Provider {
		return &flawed{Provider: fake.New(store, fake.Options{Gate: gate}), f: flaw{taken: forget}, store: store, gate: gate}
	}
	return h
}
