package repository

import (
	"bytes"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/object"
)

type byteReader struct{ *bytes.Reader }

func (r byteReader) Close() error  { return nil }
func (r byteReader) Length() int64 { return r.Size() }

var _ object.Reader = byteReader{}

func listingOf(b []byte) *Listing {
	r := byteReader{bytes.NewReader(b)}
	return &Listing{r: r}
}

func fsTime(t time.Time) kopiafs.UTCTimestamp { return kopiafs.UTCTimestamp(t.UnixNano()) }
