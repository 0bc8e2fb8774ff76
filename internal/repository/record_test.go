package repository

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"pgregory.net/rapid"

	"stillpoint/internal/tree"
)

// Times that some file system can hold: btrfs has 64 bits of seconds.
func times() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		s := rapid.OneOf(
			rapid.Int64Range(-1<<40, 1<<40),
			rapid.SampledFrom([]int64{0, -1, math.MaxInt32, -62135596801, -62135596800, 253402300799, 253402300800, math.MinInt64 / 4, math.MaxInt64 / 4, math.MaxInt64 / int64(time.Second), math.MaxInt64/int64(time.Second) + 1}),
		).Draw(t, "seconds")
		return time.Unix(s, rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
	})
}

// Names as the kernel has them: any bytes but '/' and NUL.
func names() *rapid.Generator[string] {
	part := rapid.OneOf(rapid.SampledFrom([]string{`\x41`, `\xff`, "\xff", "\xc3", "é", "<&>", `"`, `\`, "\n", "\u2028", "�", "\x7f", "\x01", "日本", " ", "a"}), rapid.StringN(0, 5, 20))
	return rapid.Custom(func(t *rapid.T) string {
		s := strings.Join(rapid.SliceOfN(part, 1, 8).Draw(t, "parts"), "")
		s = strings.NewReplacer("/", "", "\x00", "").Replace(s)
		if s == "" || s == "." || s == ".." {
			return "x"
		}
		return s
	})
}

func entries() *rapid.Generator[tree.Entry] {
	return rapid.Custom(func(t *rapid.T) tree.Entry {
		e := tree.Entry{
			Name:     names().Draw(t, "name"),
			Type:     rapid.SampledFrom([]tree.Type{tree.File, tree.Directory, tree.Symlink, tree.FIFO, tree.Char, tree.Block, tree.Socket}).Draw(t, "type"),
			Mode:     rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			UID:      rapid.Uint32().Draw(t, "uid"),
			GID:      rapid.Uint32().Draw(t, "gid"),
			Modified: times().Draw(t, "mtime"),
			Changed:  times().Draw(t, "ctime"),
			Inode:    rapid.Uint64().Draw(t, "inode"),
			Links:    rapid.Uint64Range(1, 1<<20).Draw(t, "links"),
			Flags:    tree.Flags(rapid.Uint32().Draw(t, "flags")),
		}
		for range rapid.IntRange(0, 3).Draw(t, "xattrs") {
			e.XAttrs = append(e.XAttrs, tree.XAttr{Name: "user." + names().Draw(t, "xattr"), Value: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")})
		}
		switch e.Type {
		case tree.Directory:
			e.Links = 1 // says how many subdirectories it has
		case tree.Symlink:
			e.Target = names().Draw(t, "target")
			e.Size = int64(len(e.Target))
		case tree.Char, tree.Block:
			e.Device = rapid.Uint64().Draw(t, "device")
		case tree.File:
			e.Size = rapid.Int64Range(0, math.MaxInt64).Draw(t, "size")
			at := int64(0)
			for range rapid.IntRange(0, 3).Draw(t, "holes") {
				if e.Size-at < 2 {
					break
				}
				from := rapid.Int64Range(at, e.Size-1).Draw(t, "from")
				to := rapid.Int64Range(from+1, e.Size).Draw(t, "to")
				e.Holes = append(e.Holes, tree.Range{Offset: from, Length: to - from})
				at = to
			}
		}
		return e
	})
}

// sameEntry compares what must come back; times by their instant.
func sameEntry(a, b tree.Entry) bool {
	if !a.Modified.Equal(b.Modified) || !a.Changed.Equal(b.Changed) || len(a.XAttrs) != len(b.XAttrs) {
		return false
	}
	for i := range a.XAttrs {
		if a.XAttrs[i].Name != b.XAttrs[i].Name || !bytes.Equal(a.XAttrs[i].Value, b.XAttrs[i].Value) {
			return false
		}
	}
	a.Modified, a.Changed, b.Modified, b.Changed = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	a.XAttrs, b.XAttrs = nil, nil
	return reflect.DeepEqual(a, b)
}

const someObject = "k0123456789abcdef0123456789abcdef"

// Any entry comes back from a listing as it was, and stock kopia sees the same
// of it, as far as its own entry goes.
func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{Entry: entries().Draw(t, "entry"), Object: someObject, Volume: rapid.SampledFrom([]string{"", "uuid/5"}).Draw(t, "volume"), Open: rapid.Bool().Draw(t, "open")}
		r.stored = tree.StoredName(r.Name)
		b, err := r.appendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		var j record
		if err := json.Unmarshal(b, &j); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		back, err := j.toRecord()
		if err != nil {
			t.Fatal(err)
		}
		if !sameEntry(back.Entry, r.Entry) || back.Object != r.Object || back.Volume != r.Volume || back.Open != r.Open || back.stored != r.stored {
			t.Fatalf("was  %+v\nread %+v\n%s", r, back, b)
		}
		l := listingOf(slices.Concat([]byte(listingHead), b, []byte(","), b, []byte("]}")))
		must(t, l.start())
		for range 2 {
			back, err := l.Next()
			if err != nil || !sameEntry(back.Entry, r.Entry) || back.Object != r.Object || back.Volume != r.Volume || back.Open != r.Open || back.stored != r.stored {
				t.Fatalf("was    %+v\nlisted %+v, %v\n%s", r, back, err, b)
			}
		}
		if _, err := l.Next(); err != io.EOF {
			t.Fatal(err)
		}
		root, err := encodeRoot(&r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err = decodeRoot(root); err != nil || !sameEntry(back.Entry, r.Entry) || back.Open != r.Open {
			t.Fatalf("root: %v\nwas  %+v\nread %+v", err, r, back)
		}
		checkStock(t, &r, b)
	})
}

// checkStock compares what stock kopia decodes.
func checkStock(t *rapid.T, r *Record, b []byte) {
	var d snapshot.DirEntry
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("stock kopia: %v in %s", err, b)
	}
	mode := goMode(r.Mode)
	want := snapshot.DirEntry{Name: tree.StoredName(r.Name), Type: "f", Permissions: snapshot.Permissions(mode),
		UserID: r.UID, GroupID: r.GID, ModTime: d.ModTime, FileSize: r.Size}
	switch r.Type {
	case tree.Directory:
		want.Type, want.FileSize = "d", 0
	case tree.Symlink:
		want.Type = "s"
	case tree.File:
	default:
		want.FileSize = 0
	}
	want.ObjectID, _ = object.ParseID(someObject)
	if d != want {
		t.Fatalf("stock kopia sees %+v, want %+v", d, want)
	}
	// kopia counts nanoseconds in 64 bits: the years 1677 to 2262.
	first, last := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)
	got := d.ModTime.ToTime()
	switch {
	case r.Modified.Before(first):
		if !got.Equal(first) {
			t.Fatalf("stock kopia sees %s for %s", got, r.Modified)
		}
	case r.Modified.After(last):
		if !got.Equal(last) {
			t.Fatalf("stock kopia sees %s for %s", got, r.Modified)
		}
	case !got.Equal(r.Modified):
		t.Fatalf("stock kopia sees %s for %s", got, r.Modified)
	}
}

// goMode is what kopia stores: the bits of os.FileMode.
func goMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// What stock kopia's own types write is read with all that they hold.
func TestStockListingRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		oid, _ := object.ParseID(someObject)
		var dir snapshot.DirManifest
		dir.StreamType = directoryStream
		var want []Record
		for _, e := range rapid.SliceOfN(entries(), 0, 5).Draw(t, "entries") {
			if e.Type != tree.File && e.Type != tree.Directory && e.Type != tree.Symlink {
				continue
			}
			e.Name = strings.ToValidUTF8(e.Name, "?")
			e.Modified = time.Unix(0, rapid.Int64().Draw(t, "mtime"))
			r := Record{Entry: e}
			dir.Entries = append(dir.Entries, &snapshot.DirEntry{Name: e.Name, Type: snapshot.EntryType(r.kopiaType()), Permissions: snapshot.Permissions(goMode(e.Mode)),
				FileSize: e.Size, ModTime: fsTime(e.Modified), UserID: e.UID, GroupID: e.GID, ObjectID: oid})
			want = append(want, r)
		}
		b, err := json.Marshal(dir)
		if err != nil {
			t.Fatal(err)
		}
		l := listingOf(b)
		if err := l.start(); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			r, err := l.Next()
			if err != nil {
				t.Fatal(err)
			}
			if r.Name != w.Name || r.Type != w.Type || r.Mode != w.Mode || r.Size != w.Size || r.UID != w.UID || r.GID != w.GID || !r.Modified.Equal(w.Modified) || r.Object != someObject {
				t.Fatalf("read %+v, want %+v", r, w)
			}
		}
		if _, err := l.Next(); err != io.EOF {
			t.Fatal(err)
		}
	})
}

// A listing that no honest run has written is damage, and never more work or
// memory than its own length.
func TestHostileRecord(t *testing.T) {
	for name, entry := range map[string]string{
		"hole before the start": `"size":10,"stillpoint":{"c":[0,0],"i":1,"h":[[-9223372036854775807,5]]}`,
		"hole of negative size": `"size":10,"stillpoint":{"c":[0,0],"i":1,"h":[[5,-9223372036854775807]]}`,
		"hole beyond the end":   `"size":10,"stillpoint":{"c":[0,0],"i":1,"h":[[5,6]]}`,
		"end that overflows":    `"size":10,"stillpoint":{"c":[0,0],"i":1,"h":[[5,9223372036854775807]]}`,
		"holes in disorder":     `"size":10,"stillpoint":{"c":[0,0],"i":1,"h":[[5,1],[0,1]]}`,
		"negative size":         `"size":-1`,
	} {
		t.Run(name, func(t *testing.T) {
			l := listingOf([]byte(`{"stream":"kopia:directory","entries":[{"name":"x","type":"f","mode":"0644",` + entry + `}]}`))
			if err := l.start(); err != nil {
				t.Fatal(err)
			}
			if r, err := l.Next(); err == nil || err == io.EOF {
				t.Errorf("taken: %+v, %v", r, err)
			}
		})
	}
}
