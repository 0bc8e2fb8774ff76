package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/problem"
)

// A Listing reads the records of one directory, in their order: directories
// first, then the others, each by stored name. It never holds more than some.
type Listing struct {
	r    object.Reader
	room []byte // for what is read
	buf  []byte // the part of it that is not yet used
	err  error
}

// listingRoom is how much of a listing is read at once, some 500 names.
const listingRoom = 128 << 10

// opener is what a listing needs of kopia: a repository or a write session.
type opener interface {
	OpenObject(ctx context.Context, id object.ID) (object.Reader, error)
}

var _ opener = repo.Repository(nil)

func openListing(ctx context.Context, k opener, id string) (*Listing, error) {
	oid, err := object.ParseID(id)
	if err != nil {
		return nil, problem.New(problem.RepositoryDamaged, id, err)
	}
	r, err := k.OpenObject(ctx, oid)
	if err != nil {
		return nil, understand(id, err)
	}
	l := &Listing{r: r}
	if err := l.start(); err != nil {
		l.Close()
		return nil, damaged(id, err)
	}
	return l, nil
}

// start goes to the first record: {"stream":"kopia:directory","entries":[ …
func (l *Listing) start() error {
	if err := l.expect('{'); err != nil {
		return err
	}
	for {
		key, err := l.value()
		if err != nil {
			return err
		}
		entries := string(key) == `"entries"`
		if err := l.expect(':'); err != nil {
			return err
		}
		if entries {
			break
		}
		if _, err := l.value(); err != nil {
			return err
		}
		if err := l.expect(','); err != nil {
			return err
		}
	}
	c, err := l.next()
	if err == nil && c == 'n' { // "entries":null: kopia's empty directory
		l.err = io.EOF
		return nil
	}
	return l.expect('[')
}

// Next returns the next record, and io.EOF after the last one.
func (l *Listing) Next() (Record, error) {
	if l.err != nil {
		return Record{}, l.err
	}
	r, err := l.record()
	if err != nil {
		l.err = err
		if err != io.EOF {
			l.err = damaged("", err)
		}
	}
	return r, l.err
}

func (l *Listing) record() (Record, error) {
	c, err := l.next()
	if err == nil && c == ',' {
		l.buf = l.buf[1:]
		c, err = l.next()
	}
	switch {
	case err != nil:
		return Record{}, both(io.ErrUnexpectedEOF, err)
	case c == ']':
		return Record{}, io.EOF
	}
	p := parser{b: l.buf}
	if r, ok := p.record(); ok {
		l.buf = p.b
		return r, nil
	}
	return l.unusual()
}

// unusual reads a record that the parser does not understand, or that is not
// all in the buffer.
func (l *Listing) unusual() (Record, error) {
	b, err := l.value()
	if err != nil {
		return Record{}, err
	}
	var j record
	if err := json.Unmarshal(b, &j); err != nil {
		return Record{}, err
	}
	return j.toRecord()
}

// value takes the next value from the buffer. It is valid until the next call.
func (l *Listing) value() ([]byte, error) {
	if _, err := l.next(); err != nil {
		return nil, err
	}
	for {
		if n := valueEnd(l.buf); n >= 0 {
			v := l.buf[:n]
			l.buf = l.buf[n:]
			return v, nil
		}
		if err := l.more(); err != nil {
			return nil, err
		}
	}
}

func (l *Listing) expect(want byte) error {
	c, err := l.next()
	if err == nil && c != want {
		err = fmt.Errorf("unexpected %q", c)
	}
	if err == nil {
		l.buf = l.buf[1:]
	}
	return err
}

// next is the byte that comes next but for white space.
func (l *Listing) next() (byte, error) {
	for {
		l.buf = bytes.TrimLeft(l.buf, " \t\r\n")
		if len(l.buf) > 0 {
			return l.buf[0], nil
		}
		if err := l.more(); err != nil {
			return 0, err
		}
	}
}

// more reads at least one byte more into the buffer.
func (l *Listing) more() error {
	if need := min(l.r.Length(), max(listingRoom, 2*int64(len(l.buf)))); int64(len(l.room)) < need {
		l.room = make([]byte, need)
	}
	n := copy(l.room, l.buf)
	m, err := io.ReadFull(l.r, l.room[n:])
	l.buf = l.room[:n+m]
	if m > 0 {
		return nil
	}
	return err
}

// Close ends the reading.
func (l *Listing) Close() error { return l.r.Close() }

// damaged says that a listing cannot be understood, unless the error says more.
func damaged(id string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return understand(id, fmt.Errorf("listing: %w", err))
}

// A cursor goes through the listing of an earlier backup beside the names of
// today; both have the same order.
type cursor struct {
	l    *Listing
	cur  Record
	done bool
}

// openCursor is empty where id is, or where the listing cannot be read: then
// everything is read again, which is always right.
func openCursor(ctx context.Context, k opener, id string) *cursor {
	if id == "" {
		return &cursor{done: true}
	}
	l, err := openListing(ctx, k, id)
	if err != nil {
		return &cursor{done: true}
	}
	c := &cursor{l: l}
	c.next()
	return c
}

func (c *cursor) next() {
	var err error
	if c.cur, err = c.l.Next(); err != nil {
		c.done = true
	}
}

// find returns the record with the stored name, or nil. Calls come in order.
func (c *cursor) find(dir bool, stored string) *Record {
	for !c.done {
		switch order(c.cur.kopiaType() == "d", c.cur.stored, dir, stored) {
		case 0:
			r := c.cur
			return &r
		case 1:
			return nil
		}
		c.next()
	}
	return nil
}

func (c *cursor) close() {
	if c.l != nil {
		c.l.Close()
	}
}

func order(adir bool, a string, bdir bool, b string) int {
	switch {
	case adir != bdir && adir:
		return -1
	case adir != bdir:
		return 1
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// directoryStream is kopia's word at the head of a listing
// (snapshot/snapshotfs/dir_reader.go).
const directoryStream = "kopia:directory"

func summaryJSON(s *kopiafs.DirectorySummary) ([]byte, error) { return json.Marshal(s) }
