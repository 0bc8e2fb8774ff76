package repository

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	kopiafs "github.com/kopia/kopia/fs"

	"stillpoint/internal/tree"
)

// A Record is an entry as it lies in a directory of the repository.
type Record struct {
	tree.Entry
	Object  string                    // ID of the content; of a directory, of its listing
	Volume  string                    // set where a volume begins, for the names below it
	Summary *kopiafs.DirectorySummary // of directories

	// Open says of a file that it was read live though it was, or may have
	// been, open for writing: the next backup does not rely on it.
	Open bool

	stored string // name in the repository, the key of the order
}

// rest is what kopia's entry has no field for. It is the field "stillpoint" of
// each entry; the names are short because there is one per file.
type rest struct {
	Type   string      `json:"t,omitempty"` // fifo, char, block, socket: kopia sees an empty file
	Name   []byte      `json:"n,omitempty"` // where the stored name is not the real one
	Target []byte      `json:"s,omitempty"` // of a symlink, also an object for kopia
	Mtime  *[2]int64   `json:"m,omitempty"` // seconds, nanoseconds; only where kopia's field cannot hold it
	Ctime  [2]int64    `json:"c"`           // seconds, nanoseconds
	Inode  uint64      `json:"i"`           //
	Links  uint64      `json:"l,omitempty"` // where more than one
	Device uint64      `json:"d,omitempty"` // of a device node
	Flags  uint32      `json:"f,omitempty"` // FS_IOC_GETFLAGS
	Volume string      `json:"v,omitempty"` // identity, where a volume begins
	XAttrs []restXAttr `json:"x,omitempty"` //
	Holes  [][2]int64  `json:"h,omitempty"` // offset, length
	Open   bool        `json:"o,omitempty"` // was open for writing when it was read
}

type restXAttr struct {
	Name  string `json:"n"`
	Bytes []byte `json:"b,omitempty"` // the name, where it is not UTF-8
	Value []byte `json:"v"`
}

// record is an entry as JSON has it.
type record struct {
	Name    string                    `json:"name"`
	Type    string                    `json:"type"`
	Mode    string                    `json:"mode"`
	Size    int64                     `json:"size"`
	ModTime time.Time                 `json:"mtime"`
	UID     uint32                    `json:"uid"`
	GID     uint32                    `json:"gid"`
	Object  string                    `json:"obj"`
	Summary *kopiafs.DirectorySummary `json:"summ"`
	Rest    *rest                     `json:"stillpoint"`
}

func (j *record) toRecord() (Record, error) {
	r := Record{Object: j.Object, Summary: j.Summary, stored: j.Name}
	r.Name, r.Size, r.UID, r.GID, r.Modified = j.Name, j.Size, j.UID, j.GID, j.ModTime
	r.Links = 1
	if j.ModTime.IsZero() {
		r.Modified = time.Unix(0, 0) // kopia leaves it out then
	}
	if j.Mode != "" {
		m, err := strconv.ParseUint(j.Mode, 0, 32)
		if err != nil {
			return r, fmt.Errorf("mode of %q: %w", j.Name, err)
		}
		r.Mode = modeFromKopia(fs.FileMode(m))
	}
	switch j.Type {
	case "f":
		r.Type = tree.File
	case "d":
		r.Type = tree.Directory
	case "s":
		r.Type = tree.Symlink
	default:
		return r, fmt.Errorf("type of %q: %q is unknown", j.Name, j.Type)
	}
	if j.Rest != nil {
		j.Rest.apply(&r)
	}
	return r, r.possible()
}

// possible refuses what no file can be like, before anybody calculates with it.
func (r *Record) possible() error {
	if r.Size < 0 {
		return fmt.Errorf("size of %q: %d", r.Name, r.Size)
	}
	at := int64(0)
	for _, h := range r.Holes {
		if h.Offset < at || h.Length < 0 || h.Length > r.Size-h.Offset {
			return fmt.Errorf("hole of %q: %d bytes at %d", r.Name, h.Length, h.Offset)
		}
		at = h.Offset + h.Length
	}
	return nil
}

// The bits of a mode that Go keeps elsewhere, and with it kopia
// (snapshot/upload/upload.go: md.Mode() & fs.ModBits).
var specialBits = [...]struct {
	unix uint32
	mode fs.FileMode
}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}

func modeFromKopia(m fs.FileMode) uint32 {
	mode := uint32(m & fs.ModePerm)
	for _, b := range specialBits {
		if m&b.mode != 0 {
			mode |= b.unix
		}
	}
	return mode
}

func modeForKopia(mode uint32) fs.FileMode {
	m := fs.FileMode(mode) & fs.ModePerm
	for _, b := range specialBits {
		if mode&b.unix != 0 {
			m |= b.mode
		}
	}
	return m
}

func (x *rest) apply(r *Record) {
	if x.Type != "" {
		r.Type = tree.Type(x.Type)
	}
	if x.Name != nil {
		r.Name = string(x.Name)
	}
	if x.Mtime != nil {
		r.Modified = time.Unix(x.Mtime[0], x.Mtime[1])
	}
	if x.Links > 1 {
		r.Links = x.Links
	}
	r.Target = string(x.Target)
	r.Changed = time.Unix(x.Ctime[0], x.Ctime[1])
	r.Inode, r.Device, r.Flags, r.Volume, r.Open = x.Inode, x.Device, tree.Flags(x.Flags), x.Volume, x.Open
	for _, a := range x.XAttrs {
		if a.Bytes != nil {
			a.Name = string(a.Bytes)
		}
		r.XAttrs = append(r.XAttrs, tree.XAttr{Name: a.Name, Value: a.Value})
	}
	for _, h := range x.Holes {
		r.Holes = append(r.Holes, tree.Range{Offset: h[0], Length: h[1]})
	}
}

// kopiaType is what the stock program sees. What it has no word for is an
// empty file there.
func (r *Record) kopiaType() string {
	switch r.Type {
	case tree.Directory:
		return "d"
	case tree.Symlink:
		return "s"
	}
	return "f"
}

func (r *Record) rest() rest {
	x := rest{
		Ctime:  [2]int64{r.Changed.Unix(), int64(r.Changed.Nanosecond())},
		Inode:  r.Inode,
		Device: r.Device,
		Flags:  uint32(r.Flags),
		Volume: r.Volume,
		Open:   r.Open,
	}
	switch r.Type {
	case tree.File, tree.Directory:
	case tree.Symlink:
		x.Target = []byte(r.Target)
	default:
		x.Type = string(r.Type)
	}
	if r.stored != r.Name {
		x.Name = []byte(r.Name)
	}
	if r.Links > 1 && r.Type != tree.Directory {
		x.Links = r.Links
	}
	if !r.mtime().Equal(r.Modified) {
		x.Mtime = &[2]int64{r.Modified.Unix(), int64(r.Modified.Nanosecond())}
	}
	for _, a := range r.XAttrs {
		y := restXAttr{Name: a.Name, Value: a.Value}
		if !utf8.ValidString(a.Name) {
			y.Bytes = []byte(a.Name)
		}
		x.XAttrs = append(x.XAttrs, y)
	}
	for _, h := range r.Holes {
		x.Holes = append(x.Holes, [2]int64{h.Offset, h.Length})
	}
	return x
}

// The first and the last time that kopia can hold, which counts nanoseconds in
// 64 bits (fs.UTCTimestamp).
var (
	earliest = time.Unix(0, math.MinInt64)
	latest   = time.Unix(0, math.MaxInt64)
)

// mtime is the time that kopia's field can hold, nearest to the real one.
func (r *Record) mtime() time.Time {
	switch {
	case r.Modified.Before(earliest):
		return earliest.UTC()
	case r.Modified.After(latest):
		return latest.UTC()
	}
	return r.Modified.UTC()
}

// appendJSON appends the record as kopia writes it. It is written by hand
// because it runs once per file of every backup (encoding/json took four times
// as long).
func (r *Record) appendJSON(b []byte) ([]byte, error) {
	b = append(b, `{"name":`...)
	b = appendString(b, r.stored)
	b = append(b, `,"type":"`...)
	b = append(b, r.kopiaType()...)
	b = append(b, `","mode":"0`...)
	b = strconv.AppendUint(b, uint64(modeForKopia(r.Mode)), 8)
	b = append(b, '"')
	if r.Size != 0 && r.Type != tree.Directory {
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, r.Size, 10)
	}
	b = append(b, `,"mtime":"`...)
	b = r.mtime().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if r.UID != 0 {
		b = append(b, `,"uid":`...)
		b = strconv.AppendUint(b, uint64(r.UID), 10)
	}
	if r.GID != 0 {
		b = append(b, `,"gid":`...)
		b = strconv.AppendUint(b, uint64(r.GID), 10)
	}
	if r.Object != "" {
		b = append(b, `,"obj":"`...)
		b = append(b, r.Object...)
		b = append(b, '"')
	}
	if r.Summary != nil {
		j, err := json.Marshal(r.Summary)
		if err != nil {
			return b, err
		}
		b = append(append(b, `,"summ":`...), j...)
	}
	return r.appendRest(append(b, `,"stillpoint":`...))
}

// appendRest appends the field that is ours, in the short way where it holds
// numbers only.
func (r *Record) appendRest(b []byte) ([]byte, error) {
	x := r.rest()
	if x.Type != "" || x.Name != nil || x.Target != nil || x.Mtime != nil || x.Volume != "" || x.XAttrs != nil || x.Holes != nil || x.Open {
		j, err := json.Marshal(&x)
		return append(append(b, j...), '}'), err
	}
	b = append(b, `{"c":[`...)
	b = strconv.AppendInt(b, x.Ctime[0], 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, x.Ctime[1], 10)
	b = append(b, `],"i":`...)
	b = strconv.AppendUint(b, x.Inode, 10)
	if x.Links != 0 {
		b = append(b, `,"l":`...)
		b = strconv.AppendUint(b, x.Links, 10)
	}
	if x.Device != 0 {
		b = append(b, `,"d":`...)
		b = strconv.AppendUint(b, x.Device, 10)
	}
	if x.Flags != 0 {
		b = append(b, `,"f":`...)
		b = strconv.AppendUint(b, uint64(x.Flags), 10)
	}
	return append(b, '}', '}'), nil
}

// appendString appends s, valid UTF-8, as a JSON string.
func appendString(b []byte, s string) []byte {
	plain := func(r rune) bool {
		return r < 0x20 || r == '"' || r == '\\' || r == utf8.RuneError || r == '\u2028' || r == '\u2029'
	}
	if strings.IndexFunc(s, plain) < 0 {
		return append(append(append(b, '"'), s...), '"')
	}
	j, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(b, j...)
}

// encodeRoot and decodeRoot carry the root's own record in a tag of the
// manifest, because the stock program drops fields it does not know when it
// writes a manifest again.
func encodeRoot(r *Record) (string, error) {
	j, err := r.appendJSON(nil)
	return base64.RawStdEncoding.EncodeToString(j), err
}

func decodeRoot(s string) (Record, error) {
	j, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return Record{}, err
	}
	var rec record
	if err := json.Unmarshal(j, &rec); err != nil {
		return Record{}, err
	}
	return rec.toRecord()
}
