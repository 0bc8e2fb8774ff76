package repository

import (
	"encoding/json"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"stillpoint/internal/tree"
)

// A listing of ours with some bytes changed, as damage or another program may
// write it, is read as encoding/json reads it; if that cannot, nothing worse
// happens than an error.
func TestListingAgreesWithJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(listingHead)
		for i := range rapid.IntRange(0, 3).Draw(t, "records") {
			r := Record{Entry: entries().Draw(t, "entry"), Object: someObject}
			r.stored = tree.StoredName(r.Name)
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			b, err = r.appendJSON(b)
			must(t, err)
		}
		b = append(b, `],"summary":{"size":1}}`...)
		changes := rapid.IntRange(0, 3).Draw(t, "changes")
		for range changes {
			at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
			with := rapid.SampledFrom([]byte(`"\{}[],:0-19 eE.+xtfnu`+"\x00\x7f\xff\t\n")).Draw(t, "with")
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0:
				b[at] = with
			case 1:
				b = slices.Insert(b, at, with)
			case 2:
				b = slices.Delete(b, at, at+1)
			}
		}
		var got []Record
		l := listingOf(b)
		err := l.start()
		for err == nil {
			var r Record
			if r, err = l.Next(); err == nil {
				got = append(got, r)
			}
		}
		var dir struct {
			Entries []record `json:"entries"`
		}
		if json.Unmarshal(b, &dir) != nil || err != io.EOF && changes > 0 {
			return
		}
		if err != io.EOF || len(got) != len(dir.Entries) {
			t.Fatalf("%s\nread %d records and %v; json %d", b, len(got), err, len(dir.Entries))
		}
		for i, j := range dir.Entries {
			want, err := j.toRecord()
			if err != nil || !sameEntry(got[i].Entry, want.Entry) || got[i].Object != want.Object || got[i].stored != want.stored {
				t.Fatalf("%s\nread %+v\njson %+v, %v", b, got[i], want, err)
			}
		}
	})
}
