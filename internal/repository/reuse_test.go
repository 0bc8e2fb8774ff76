package repository

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// What is certainly unchanged is not read again; all else is.
func TestReuse(t *testing.T) {
	const size = 5000
	then := time.Now().Add(-time.Hour)
	set := func(t *testing.T, path string) {
		write(t, path, strings.Repeat("n", size))
		modified(t, path, then)
	}
	for name, c := range map[string]struct {
		first  take
		change func(t *testing.T, path string)
		second take
		read   int64
	}{
		"nothing":             {read: 0},
		"rewritten in place":  {change: set, read: size},
		"replaced":            {change: func(t *testing.T, p string) { set(t, p+"2"); must(t, os.Rename(p+"2", p)) }, read: size},
		"mode":                {change: func(t *testing.T, p string) { must(t, os.Chmod(p, 0o600)) }, read: size},
		"xattr":               {change: func(t *testing.T, p string) { must(t, syscall.Setxattr(p, "user.x", []byte("y"), 0)) }, read: size},
		"hard link added":     {change: func(t *testing.T, p string) { must(t, os.Link(p, p+"2")) }, read: size},
		"another volume":      {second: take{volume: "other"}, read: size},
		"younger than a tick": {first: take{instant: time.Now()}, read: size},
		"clock set back":      {first: take{instant: time.Now().Add(-24 * time.Hour)}, read: size},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := create(t, dir+"/repo", "host")
			file := dir + "/src/sub/file"
			write(t, file, strings.Repeat("o", size))
			modified(t, file, then)
			if c.first.instant.IsZero() {
				c.first.instant = old()
			}
			c.first.store(t, r, dir+"/src", "first")
			if c.first.count.ReadBytes != size {
				t.Errorf("first: read %d bytes, want %d", c.first.count.ReadBytes, size)
			}
			if c.change != nil {
				c.change(t, file)
			}
			c.second.store(t, r, dir+"/src", "second")
			if got := c.second.count.ReadBytes; got != c.read {
				t.Errorf("second: read %d bytes, want %d", got, c.read)
			}
			checkFile(t, r, &c.second.tree, "/live/sub/file", file)
		})
	}
}

// What was read while it was open for writing is read again, though it seems to be
// unchanged, until it was open to nobody.
func TestReuseOfOpen(t *testing.T) {
	for name, from := range map[string]string{"in a directory": "", "a single file": "/file"} {
		dir := t.TempDir()
		r := create(t, dir+"/repo", "host")
		file := dir + "/src/file"
		write(t, file, "content")
		modified(t, file, time.Now().Add(-time.Hour))
		must(t, os.Link(file, dir+"/src/name"))
		open := func(context.Context, string, *tree.Content) (func() error, error) {
			return func() error { return problem.Newf(problem.FileOpenRead, "", "open") }, nil
		}
		for i, want := range []struct {
			open bool
			read int64
		}{{true, 7}, {true, 7}, {false, 7}, {true, 0}} {
			k := take{instant: time.Now().Add(time.Hour)}
			if want.open {
				k.opened = open
			}
			k.store(t, r, dir+"/src"+from, fmt.Sprint(i))
			if told := len(k.exceptions) > 0; k.count.ReadBytes != want.read || told != (want.open && want.read > 0) {
				t.Errorf("%s, run %d: read %d bytes, told %q", name, i, k.count.ReadBytes, k.exceptions)
			}
		}
	}
}

// checkFile compares a file of a backup with the one on the disk.
func checkFile(t *testing.T, r *Repository, in *Tree, path, file string) {
	t.Helper()
	rec, err := r.Lookup(t.Context(), in, path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Mode != uint32(info.Mode().Perm()) || !rec.Modified.Equal(info.ModTime()) || rec.Size != info.Size() {
		t.Errorf("%s: stored %+v, is %v %v %d", path, rec, info.Mode(), info.ModTime(), info.Size())
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := contentOf(t, r, &rec); got != string(want) {
		t.Errorf("%s: stored %.40q, is %.40q", path, got, want)
	}
	x := make([]byte, 10)
	if n, err := syscall.Getxattr(file, "user.x", x); err == nil {
		if len(rec.XAttrs) != 1 || string(rec.XAttrs[0].Value) != string(x[:n]) {
			t.Errorf("%s: stored attributes %v", path, rec.XAttrs)
		}
	}
}

// The attributes of a directory that did not change are as they were.
func TestReuseOfDirectory(t *testing.T) {
	dir := t.TempDir()
	r := create(t, dir+"/repo", "host")
	sub := dir + "/src/sub"
	must(t, os.MkdirAll(sub, 0o755))
	must(t, syscall.Setxattr(sub, "user.x", []byte("y"), 0))
	if out, err := exec.Command("chattr", "+AdS", sub).CombinedOutput(); err != nil {
		t.Fatalf("chattr: %v: %s", err, out)
	}
	first := take{instant: old()}
	first.store(t, r, dir+"/src", "first")
	var second take
	second.store(t, r, dir+"/src", "second")
	for _, k := range []*take{&first, &second} {
		rec, err := r.Lookup(t.Context(), &k.tree, "/live/sub")
		if err != nil {
			t.Fatal(err)
		}
		if want := tree.NoAtime | tree.NoDump | tree.Sync; rec.Flags != want || len(rec.XAttrs) != 1 {
			t.Errorf("%s: flags %v, want %v; attributes %v", k.backup.ID, rec.Flags, want, rec.XAttrs)
		}
	}
}

// Names whose order is not what it seems: kinds, escapes, and kinds that
// changed since the last time. Every unchanged file is found in the last
// listing, and the listing has kopia's order.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	r := create(t, dir+"/repo", "host")
	src := dir + "/src"
	names := []string{"a", "a.txt", "a-b", "A", "\xff", "\xfe\xff", `\x41`, `\xff`, "é", "e\u0301", "a\nb", "a b", " ", `"`, `\`, "~", "\x7f", "日本", "!", "a\xffb", "a\U0010ffff", "\ufffd"}
	for _, n := range names {
		write(t, src+"/files/"+n, n)
		write(t, src+"/dirs/"+n+"/"+n, n)
		write(t, src+"/mixed/"+n, n)
		write(t, src+"/mixed/d"+n+"/x", n)
		write(t, src+"/became-dir/"+n, n)
		write(t, src+"/became-file/"+n+"/x", n)
		write(t, src+"/became-file/y"+n, n)
	}
	for i := range 3 * batch {
		write(t, fmt.Sprintf("%s/many/%d", src, i), "m")
	}
	first := take{instant: old()}
	first.store(t, r, src, "first")
	checkOrder(t, r, &first.tree.Root)

	changed := 0
	for _, n := range names[:len(names)/2] {
		must(t, os.Remove(src+"/became-dir/"+n))
		write(t, src+"/became-dir/"+n+"/x", n)
		must(t, os.RemoveAll(src+"/became-file/"+n))
		write(t, src+"/became-file/"+n, n)
		write(t, src+"/files/new"+n, n)
		must(t, os.Remove(src+"/mixed/"+n))
		changed += 3
	}
	var second take
	second.store(t, r, src, "second")
	checkOrder(t, r, &second.tree.Root)
	if c := second.count; c.Files-c.Reused != int64(changed) {
		t.Errorf("%d of %d files read again, want %d", c.Files-c.Reused, c.Files, changed)
	}
	if len(second.exceptions) > 0 {
		t.Error(second.exceptions)
	}
}

// checkOrder walks listings and fails where their order is not kopia's
// (snapshot/snapshotfs/dir_manifest_builder.go). It returns the names met.
func checkOrder(t *testing.T, r *Repository, dir *Record) (names int) {
	t.Helper()
	var all []Record
	for _, rec := range list(t, r, dir) {
		all = append(all, rec)
		names++
		if rec.Type == tree.Directory {
			names += checkOrder(t, r, &rec)
		}
	}
	if !slices.IsSortedFunc(all, func(a, b Record) int {
		if ad, bd := a.Type == tree.Directory, b.Type == tree.Directory; ad != bd {
			return map[bool]int{true: -1, false: 1}[ad]
		}
		return strings.Compare(a.stored, b.stored)
	}) {
		t.Errorf("%q is not in order", dir.Name)
	}
	return names
}

// A directory whose listing does not fit memory is streamed.
func TestLongListing(t *testing.T) {
	dir := onTmpfs(t)
	r := create(t, filepath.Join(t.TempDir(), "repo"), "host")
	const n = 90_000 // of some 200 bytes: more than spill
	must(t, os.Mkdir(dir+"/d", 0o755))
	for i := range n {
		f, err := os.Create(fmt.Sprintf("%s/d/%06d-%s", dir, i, strings.Repeat("n", 40)))
		must(t, err)
		f.Close()
	}
	first := take{instant: old()}
	first.store(t, r, dir, "first")
	if got := checkOrder(t, r, &first.tree.Root); got != n+1 {
		t.Errorf("%d names, want %d", got, n+1)
	}
	if s := first.tree.Root.Summary; s.TotalFileCount != n || s.TotalDirCount != 2 {
		t.Errorf("summary %+v", s)
	}
	var second take
	second.store(t, r, dir, "second")
	if second.count.Reused != n || second.tree.Root.Object != first.tree.Root.Object {
		t.Errorf("%d of %d files reused; listing %s, was %s", second.count.Reused, n, second.tree.Root.Object, first.tree.Root.Object)
	}
}
