package repository

import (
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

func TestParseSpec(t *testing.T) {
	for _, c := range []struct {
		spec, backup, path string
		code               problem.Code
	}{
		{"latest", "latest", "", ""},
		{"7k2m", "7k2m", "", ""},
		{"latest:/", "latest", "/", ""},
		{"latest:/srv/mail", "latest", "/srv/mail", ""},
		{"latest:/srv/../etc/./x//y/", "latest", "/etc/x/y", ""},
		{"latest:/with:colon", "latest", "/with:colon", ""},
		{"latest:/\xff \n", "latest", "/\xff \n", ""},
		{"", "", "", problem.Usage},
		{":/srv", "", "", problem.Usage},
		{"latest:", "", "", problem.Usage},
		{"latest:srv", "", "", problem.Usage},
	} {
		backup, path, err := ParseSpec(c.spec)
		wantCode(t, c.spec, err, c.code)
		if backup != c.backup || path != c.path {
			t.Errorf("%q: %q, %q", c.spec, backup, path)
		}
	}
}

func TestChoose(t *testing.T) {
	// Newest first, as Backups returns them.
	all := []Backup{
		{ID: "abc3", Host: "other", Trees: []Tree{{Path: "/srv"}}},
		{ID: "abd2", Host: "host", Trees: []Tree{{Path: "/srv/a"}, {Path: "/srv/b"}}},
		{ID: "abc", Host: "host", Trees: []Tree{{Path: "/home"}}},
		{ID: "x1", Host: "host", Trees: []Tree{{Path: "/"}}},
	}
	for _, c := range []struct {
		host, name, path, want string
		code                   problem.Code
	}{
		{"host", "latest", "", "abd2", ""},
		{"", "latest", "", "abc3", ""},
		{"nobody", "latest", "", "", problem.NoSuchBackup},
		{"host", "latest", "/srv/a/x", "abd2", ""},
		{"host", "latest", "/srv", "x1", ""}, // it can hold all of it
		{"other", "latest", "/", "abc3", ""}, // none can, but there is something below
		{"host", "latest", "/srv/ab", "x1", ""},
		{"host", "latest", "/home", "abc", ""},
		{"other", "latest", "/home", "", problem.NoSuchBackup},
		{"host", "abc", "", "abc", ""}, // an id that begins another
		{"host", "abc3", "", "abc3", ""},
		{"host", "abd", "", "abd2", ""},
		{"host", "ab", "", "", problem.BackupAmbiguous},
		{"host", "x", "", "x1", ""},
		{"host", "y", "", "", problem.NoSuchBackup},
		{"host", "LATEST", "", "", problem.NoSuchBackup},
	} {
		b, err := Choose(all, c.host, c.name, c.path)
		wantCode(t, c.host+" "+c.name+":"+c.path, err, c.code)
		if b.ID != c.want {
			t.Errorf("%s %s:%s: %q, want %q", c.host, c.name, c.path, b.ID, c.want)
		}
	}
	_, err := Choose(nil, "host", "latest", "")
	wantCode(t, "nothing there", err, problem.NoSuchBackup)
}

func TestSelectAndLookup(t *testing.T) {
	dir := t.TempDir()
	r := create(t, dir+"/repo", "host")
	write(t, dir+"/src/a/b/file", "x")
	write(t, dir+"/src/a/\xff\n", "bytes")
	var k take
	k.store(t, r, dir+"/src", "id")
	b := Backup{ID: "id", Trees: []Tree{k.tree, {Path: "/srv/one", Root: k.tree.Root}, {Path: "/srv/two", Root: k.tree.Root},
		{Path: "/live/a/b/inner", Root: k.tree.Root}, {Path: "/live/left/out", Root: k.tree.Root}}}
	for path, want := range map[string]string{
		"":                  "/live /srv/one /srv/two /live/a/b/inner /live/left/out",
		"/":                 "/live /srv/one /srv/two /live/a/b/inner /live/left/out",
		"/live":             "/live /live/a/b/inner /live/left/out",
		"/live/a/b":         "/live/a/b /live/a/b/inner",
		"/live/a/b/inner":   "/live/a/b/inner",
		"/live/a/b/inner/a": "/live/a/b/inner/a",
		"/live/left":        "/live/left/out",
		"/srv":              "/srv/one /srv/two",
		"/srv/one":          "/srv/one",
		"/live/a/b/file":    "/live/a/b/file",
		"/live/a/\xff\n":    "/live/a/\xff\n",
		"/srv/one/a":        "/srv/one/a",
		"/live/a/b/file/x":  "!",
		"/live/nothing":     "!",
		"/live/a/\\xff\n":   "!", // the stored form is no name
		"/livery":           "!",
		"/sr":               "!",
		"/srv/onetwo":       "!",
		"/live/a/b/fil":     "!",
		"/nothing/of/these": "!",
	} {
		sel, err := r.Select(t.Context(), &b, path)
		if want == "!" {
			wantCode(t, path, err, problem.NotInBackup)
			continue
		}
		must(t, err)
		var got []string
		for _, s := range sel {
			got = append(got, s.Path)
			if s.Record.Object == "" {
				t.Errorf("%q: %s has no record", path, s.Path)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		tree, path string
		want       bool
	}{
		{"/", "/", true}, {"/", "/x", true}, {"/srv", "/srv", true}, {"/srv", "/srv/", true},
		{"/srv", "/srv/x", true}, {"/srv", "/srvx", false}, {"/srv", "/", false}, {"/srv", "/srv/../etc", false},
	} {
		if got := (&Tree{Path: c.tree}).Holds(c.path); got != c.want {
			t.Errorf("%s holds %s: %v", c.tree, c.path, got)
		}
	}
}

// The order is that of recording; what another program made has its place
// there by time, even when our clock was set back.
func TestNewestFirst(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(1_700_000_000, 0).Add(time.Duration(h) * time.Hour) }
	ours := func(id string, order int64, h int) Backup { return Backup{ID: id, order: order, Started: at(h)} }
	for _, c := range []struct {
		in   []Backup
		want string
	}{
		{[]Backup{ours("a", 1, 1), ours("b", 2, 2)}, "b a"},
		{[]Backup{ours("b", 2, 1), ours("a", 1, 9)}, "b a"},
		{[]Backup{ours("a", 1, 1), {ID: "k", Started: at(2)}, ours("b", 2, 3)}, "b k a"},
		{[]Backup{ours("a", 1, 10), ours("b", 2, 5), {ID: "k", Started: at(7)}}, "b a k"},
		{[]Backup{ours("a", 1, 10), ours("b", 2, 5), ours("c", 3, 20), {ID: "k", Started: at(15)}}, "c k b a"},
		{[]Backup{ours("b", 3, 5), ours("a", 3, 5)}, "b a"}, // recorded at once
	} {
		for range 2 { // and whatever the order before
			var got []string
			for _, b := range newestFirst(append([]Backup(nil), c.in...)) {
				got = append(got, b.ID)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			c.in = append(c.in[1:], c.in[0])
		}
	}
}

// Two hosts use one repository; each has its own latest.
func TestLatestOfHost(t *testing.T) {
	dir := t.TempDir()
	one := create(t, dir+"/repo", "one")
	two := open(t, dir+"/repo", Options{Identity: Identity{Host: "two", User: "root"}})
	write(t, dir+"/1/file", "one")
	write(t, dir+"/2/file", "two")
	(&take{}).store(t, one, dir+"/1", "a")
	(&take{}).store(t, two, dir+"/2", "b")
	all, err := one.Backups(t.Context())
	must(t, err)
	for host, want := range map[string]string{"one": "a", "two": "b", "": "b"} {
		b, err := Choose(all, host, Latest, "")
		must(t, err)
		if b.ID != want {
			t.Errorf("latest of %q is %q, want %q", host, b.ID, want)
		}
	}
	// What another host has stored under the same path is not reused.
	previous, err := two.Previous(t.Context(), "/live")
	must(t, err)
	if len(previous) != 1 || previous[0].Root.Object == mustTree(t, all, "a").Root.Object {
		t.Errorf("previous of two: %+v", previous)
	}
}

func mustTree(t *testing.T, all []Backup, id string) Tree {
	t.Helper()
	b, err := Choose(all, "", id, "")
	must(t, err)
	return b.Trees[0]
}

// A path may be any bytes.
func TestPathOfAnyBytes(t *testing.T) {
	dir := t.TempDir()
	r := create(t, dir+"/repo", "host")
	write(t, dir+"/src/file", "x")
	for i, path := range []string{"/caf\xe9", `/caf\xe9`, "/a\nb", "/日本"} {
		w, err := r.Begin(t.Context(), nil)
		must(t, err)
		tr, err := w.Store(t.Context(), tree.Source{Path: path, Root: dir + "/src", Volume: "v"}, StoreOptions{Instant: old(), Exception: func(p string, err error) { t.Error(p, err) }})
		must(t, err)
		must(t, w.Record(t.Context(), &Backup{ID: string(rune('a' + i)), Trees: []Tree{tr}}))
		must(t, w.Close(t.Context()))
		previous, err := r.Previous(t.Context(), path)
		must(t, err)
		if len(previous) != 1 || previous[0].Path != path || previous[0].Root.Object != tr.Root.Object {
			t.Errorf("%q: previous %+v", path, previous)
		}
		all, err := r.Backups(t.Context())
		must(t, err)
		b, err := Choose(all, "host", Latest, path+"/file")
		must(t, err)
		if sel, err := r.Select(t.Context(), &b, path+"/file"); err != nil || contentOf(t, r, &sel[0].Record) != "x" {
			t.Errorf("%q: %v, %v", path, sel, err)
		}
	}
}
