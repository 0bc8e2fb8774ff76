package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"stillpoint/internal/problem"
)

// fingerprint covers names, modes, times and bytes of everything below dir.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		fmt.Fprintln(h, path, i.Mode(), i.ModTime(), i.Size())
		if err == nil && i.Mode().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			h.Write(b)
		}
		return err
	}))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// What cannot be opened or made gets its code and stays as it is.
func TestOpenAndCreateRefused(t *testing.T) {
	dir := t.TempDir()
	create(t, dir+"/repo", "host")
	write(t, dir+"/other/file", "content")
	write(t, dir+"/file", "content")
	must(t, os.Mkdir(dir+"/empty", 0o755))
	before := fingerprint(t, dir)
	for _, c := range []struct {
		path, password string
		open, create   problem.Code
	}{
		{"repo", "wrong", problem.PasswordWrong, problem.RepositoryExists},
		{"repo", password + " ", problem.PasswordWrong, problem.RepositoryExists},
		{"repo", "", problem.PasswordMissing, problem.PasswordMissing},
		{"other", password, problem.NotARepository, problem.RepositoryExists},
		{"file", password, problem.RepositoryLost, problem.RepositoryLost},
		{"file/x", password, problem.RepositoryLost, problem.RepositoryLost},
		{"empty", password, problem.NotARepository, "-"},
		{"missing", password, problem.NotARepository, "-"},
	} {
		_, err := Open(t.Context(), dir+"/"+c.path, c.password, Options{})
		wantCode(t, "open "+c.path, err, c.open)
		if c.create != "-" {
			wantCode(t, "create "+c.path, Create(t.Context(), dir+"/"+c.path, c.password, Options{}), c.create)
		}
	}
	if fingerprint(t, dir) != before {
		t.Error("something changed")
	}
}

// large is a size that makes a file of several contents.
const large = 9 << 20

// A victim is a repository with three backups that share files.
type victim struct {
	*Repository
	t     *testing.T
	dir   string
	trees []Tree
}

func toDamage(t *testing.T, size int) *victim {
	d := &victim{t: t, dir: t.TempDir()}
	d.Repository = create(t, d.dir+"/repo", "host")
	random := make([]byte, size)
	fill := rand.NewChaCha8([32]byte{1})
	fill.Read(random)
	write(t, d.dir+"/src/large", string(random))
	write(t, d.dir+"/src/sub/twin", string(random))
	write(t, d.dir+"/src/sub/small", "small")
	write(t, d.dir+"/src/last", "only in the last")
	for i := range 3 {
		var k take
		k.store(t, d.Repository, d.dir+"/src", fmt.Sprint("b", i))
		d.trees = append(d.trees, k.tree)
		write(t, d.dir+"/src/last", fmt.Sprint("last", i))
	}
	return d
}

// A spot is where a content lies.
type spot struct {
	pack       string
	from, size int64
}

func (d *victim) spot(id content.ID) spot {
	d.t.Helper()
	info, err := d.kopia.ContentInfo(d.t.Context(), id)
	must(d.t, err)
	return spot{d.blob(string(info.PackBlobID)), int64(info.PackOffset), int64(info.PackedLength)}
}

func (s spot) flip(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(s.pack)
	must(t, err)
	b[s.from+s.size/2] ^= 1
	must(t, os.WriteFile(s.pack, b, 0o600))
}

// spots finds what an object is made of: first lists of contents and listings,
// then data.
func (d *victim) spots(id string) (lists, data []spot) {
	d.t.Helper()
	oid, err := object.ParseID(id)
	must(d.t, err)
	cs, err := d.kopia.VerifyObject(d.t.Context(), oid)
	must(d.t, err)
	for _, c := range cs {
		if c.HasPrefix() {
			lists = append(lists, d.spot(c))
		} else {
			data = append(data, d.spot(c))
		}
	}
	return lists, data
}

// records finds the contents that hold the manifests.
func (d *victim) records() (all []spot) {
	d.t.Helper()
	must(d.t, d.kopia.ContentReader().IterateContents(d.t.Context(), content.IterateOptions{Range: index.PrefixRange("m")}, func(i content.Info) error {
		all = append(all, d.spot(i.ContentID))
		return nil
	}))
	if len(all) == 0 {
		d.t.Fatal("no records")
	}
	return all
}

// blob is where a blob lies, found by its name without the folders.
func (d *victim) blob(id string) (path string) {
	d.t.Helper()
	must(d.t, filepath.WalkDir(d.path, func(p string, e fs.DirEntry, err error) error {
		if r, _ := filepath.Rel(d.path, p); strings.TrimSuffix(strings.ReplaceAll(r, "/", ""), ".f") == id {
			path = p
		}
		return err
	}))
	if path == "" {
		d.t.Fatalf("no blob %s", id)
	}
	return path
}

// blobs returns the files of all blobs with a prefix.
func (d *victim) blobs(prefix string) (paths []string) {
	d.t.Helper()
	must(d.t, filepath.WalkDir(d.path, func(p string, e fs.DirEntry, err error) error {
		r, _ := filepath.Rel(d.path, p)
		if name := strings.ReplaceAll(r, "/", ""); !e.IsDir() && strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, "kopia.") {
			paths = append(paths, p)
		}
		return err
	}))
	if len(paths) == 0 {
		d.t.Fatalf("no blobs %s", prefix)
	}
	return paths
}

// verify returns the damaged paths, in order.
func (d *victim) verify(readData bool) []string {
	d.t.Helper()
	r := open(d.t, d.path, Options{Identity: d.id})
	bs, err := r.Backups(d.t.Context())
	must(d.t, err)
	var paths []string
	must(d.t, r.Verify(d.t.Context(), bs, VerifyOptions{ReadData: readData, Damage: func(path string, err error) {
		if problem.CodeOf(err) != problem.RepositoryDamaged {
			d.t.Errorf("%s: %v", path, err)
		}
		paths = append(paths, path)
	}}))
	slices.Sort(paths)
	return paths
}

var everyTwin = []string{"b0:/live/large", "b0:/live/sub/twin", "b1:/live/large", "b1:/live/sub/twin", "b2:/live/large", "b2:/live/sub/twin"}

func (d *victim) want(readData bool, want []string) {
	d.t.Helper()
	if got := d.verify(readData); !slices.Equal(got, want) {
		d.t.Errorf("verify, read data %v: %q, want %q", readData, got, want)
	}
}

func TestSoundRepositoryVerifies(t *testing.T) {
	d := toDamage(t, large)
	d.want(false, nil)
	d.want(true, nil)
}

// Every content of a large file in turn: a flipped byte is found by reading,
// and every path of every backup that has it is named.
func TestFlippedByteInData(t *testing.T) {
	d := toDamage(t, large)
	large, err := d.Lookup(t.Context(), &d.trees[0], "/live/large")
	must(t, err)
	_, data := d.spots(large.Object)
	if len(data) < 2 {
		t.Fatalf("the file has %d contents", len(data))
	}
	if testing.Short() {
		data = data[len(data)-2:]
	}
	for _, c := range data {
		c.flip(t)
		d.want(false, nil)
		d.want(true, everyTwin)
		c.flip(t)
	}
	d.want(true, nil)
}

// The list of a large file's contents, and a listing, are damage that verify
// finds without reading the data.
func TestFlippedByteInListing(t *testing.T) {
	d := toDamage(t, large)
	large, err := d.Lookup(t.Context(), &d.trees[0], "/live/large")
	must(t, err)
	sub, err := d.Lookup(t.Context(), &d.trees[0], "/live/sub")
	must(t, err)
	for _, c := range []struct {
		object string
		want   []string
	}{
		{large.Object, everyTwin},
		{sub.Object, []string{"b0:/live/sub", "b1:/live/sub", "b2:/live/sub"}},
		{d.trees[1].Root.Object, []string{"b1:/live"}},
	} {
		lists, _ := d.spots(c.object)
		lists[0].flip(t)
		d.want(false, c.want)
		lists[0].flip(t)
	}
	d.want(false, nil)
}

// A pack that is gone or cut off is found without reading the data.
func TestMissingPack(t *testing.T) {
	d := toDamage(t, large)
	large, err := d.Lookup(t.Context(), &d.trees[0], "/live/large")
	must(t, err)
	_, data := d.spots(large.Object)
	path := data[0].pack
	whole, err := os.ReadFile(path)
	must(t, err)
	for name, damage := range map[string]func() error{
		"missing": func() error { return os.Remove(path) },
		"empty":   func() error { return os.Truncate(path, 0) },
		"half":    func() error { return os.Truncate(path, int64(len(whole)/2)) },
	} {
		must(t, damage())
		got := d.verify(false)
		for _, p := range everyTwin {
			if !slices.Contains(got, p) {
				t.Errorf("%s: %q does not name %s", name, got, p)
			}
		}
		must(t, os.WriteFile(path, whole, 0o600))
	}
	d.want(true, nil)
}

// Damage of what everything hangs on fails with its code, at the latest when
// the backups are listed; never with a list that lacks some.
func TestDamagedHeads(t *testing.T) {
	all := func(paths []string, do func(path string) error) error {
		var errs []error
		for _, p := range paths {
			errs = append(errs, do(p))
		}
		return errors.Join(errs...)
	}
	cut := func(path string) error { return os.Truncate(path, 40) }
	middle := func(path string) error {
		i, err := os.Stat(path)
		spot{path, 0, i.Size()}.flip(t)
		return err
	}
	for name, damage := range map[string]func(d *victim) error{
		"format blob missing":    func(d *victim) error { return os.Remove(d.path + "/" + formatFile) },
		"format blob empty":      func(d *victim) error { return os.Truncate(d.path+"/"+formatFile, 0) },
		"format blob cut off":    func(d *victim) error { return cut(d.path + "/" + formatFile) },
		"one index cut off":      func(d *victim) error { return cut(d.blobs("x")[0]) },
		"one index flipped":      func(d *victim) error { return middle(d.blobs("x")[0]) },
		"all indexes cut off":    func(d *victim) error { return all(d.blobs("x"), cut) },
		"record flipped":         func(d *victim) error { d.records()[0].flip(t); return nil },
		"packs of records gone":  func(d *victim) error { return all(d.blobs("q"), os.Remove) },
		"record that is no JSON": func(d *victim) error { return d.putRecord("no manifest") },
		"record without a root":  func(d *victim) error { return d.putRecord(snapshot.Manifest{}) },
	} {
		t.Run(name, func(t *testing.T) {
			d := toDamage(t, 1000)
			must(t, damage(d))
			before := fingerprint(t, d.path)
			r, err := Open(t.Context(), d.path, password, Options{Identity: d.id})
			if err == nil {
				defer r.Close(context.Background())
				_, err = r.Backups(t.Context())
			}
			wantCode(t, name, err, problem.RepositoryDamaged)
			if fingerprint(t, d.path) != before {
				t.Error("the repository changed")
			}
		})
	}
}

// putRecord adds a manifest that cannot be understood.
func (d *victim) putRecord(m any) error {
	return repo.WriteSession(d.t.Context(), d.kopia, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		_, err := w.PutManifest(ctx, map[string]string{manifest.TypeLabelKey: snapshot.ManifestType}, m)
		return err
	})
}

// A backup heals what is damaged in listings: they are written again, and
// files whose list of contents is gone are read again.
func TestBackupWithDamagedPredecessor(t *testing.T) {
	d := toDamage(t, large)
	sub, err := d.Lookup(t.Context(), &d.trees[2], "/live/sub")
	must(t, err)
	lists, _ := d.spots(sub.Object)
	lists[0].flip(t)
	write(t, d.dir+"/src/sub/new", "new") // else the listing is the same as the damaged one
	r := open(t, d.path, Options{Identity: d.id})
	var k take
	k.store(t, r, d.dir+"/src", "after")
	if got := d.verify(true); !slices.Equal(got, []string{"b0:/live/sub", "b1:/live/sub", "b2:/live/sub"}) {
		t.Errorf("damage: %q", got)
	}
	large, err := r.Lookup(t.Context(), &k.tree, "/live/sub/twin")
	must(t, err)
	want, err := os.ReadFile(d.dir + "/src/large")
	must(t, err)
	if !bytes.Equal([]byte(contentOf(t, r, &large)), want) {
		t.Error("content differs")
	}
}

// A file whose content is longer or shorter than its record says is damage,
// also where nothing is read.
func TestSizeOfContent(t *testing.T) {
	d := toDamage(t, large)
	for _, name := range []string{"large", "sub/small"} {
		for _, more := range []int64{-1, 0, 1} {
			rec, err := d.Lookup(t.Context(), &d.trees[0], "/live/"+name)
			must(t, err)
			rec.Size += more
			damage := 0
			must(t, d.Verify(t.Context(), []Backup{{ID: "b", Trees: []Tree{{Path: "/x", Root: rec}}}}, VerifyOptions{Damage: func(string, error) { damage++ }}))
			if (damage == 1) != (more != 0) {
				t.Errorf("%s, %+d bytes: damaged %d", name, more, damage)
			}
		}
	}
}
