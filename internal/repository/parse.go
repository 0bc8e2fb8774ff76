package repository

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	kopiafs "github.com/kopia/kopia/fs"
)

// A parser reads the records of a listing as appendJSON writes them. It is
// written by hand because it runs once per file of every backup and restore
// (encoding/json took three to five times as long). Escapes, white space, rare fields and
// whatever else it does not know make it fail; encoding/json decides then.
type parser struct {
	b      []byte // the rest
	failed bool
}

// record reads a record from the start of the buffer.
func (p *parser) record() (Record, bool) {
	var j record
	var x rest
	p.fields(&j, &x)
	if p.failed {
		return Record{}, false
	}
	r, err := j.toRecord()
	return r, err == nil
}

func (p *parser) fields(j *record, x *rest) {
	p.object(func(key []byte) {
		switch string(key) {
		case "name":
			j.Name = string(p.text())
		case "type":
			j.Type = word(p.text())
		case "mode":
			j.Mode = string(p.text())
		case "size":
			j.Size = p.number()
		case "mtime":
			p.fail(j.ModTime.UnmarshalText(p.text()) != nil)
		case "uid":
			j.UID = p.number32()
		case "gid":
			j.GID = p.number32()
		case "obj":
			j.Object = string(p.text())
		case "summ":
			j.Summary = new(kopiafs.DirectorySummary)
			p.fail(json.Unmarshal(p.value(), j.Summary) != nil)
		case "stillpoint":
			j.Rest = x
			p.rest(x)
		default:
			p.fail(true)
		}
	})
}

// word makes a string of what is one of few, without a new copy.
func word(b []byte) string {
	switch string(b) {
	case "f":
		return "f"
	case "d":
		return "d"
	case "s":
		return "s"
	}
	return string(b)
}

// rest reads the field that is ours, but for what is rare.
func (p *parser) rest(x *rest) {
	p.object(func(key []byte) {
		switch string(key) {
		case "c":
			p.expect('[')
			x.Ctime[0] = p.number()
			p.expect(',')
			x.Ctime[1] = p.number()
			p.expect(']')
		case "i":
			x.Inode = p.number64()
		case "l":
			x.Links = p.number64()
		case "f":
			x.Flags = p.number32()
		case "s":
			x.Target = p.bytes()
		case "x":
			p.list(func() { x.XAttrs = append(x.XAttrs, p.xattr()) })
		default:
			p.fail(true)
		}
	})
}

func (p *parser) xattr() (a restXAttr) {
	p.object(func(key []byte) {
		switch string(key) {
		case "n":
			a.Name = string(p.text())
		case "v":
			a.Value = p.bytes()
		default:
			p.fail(true)
		}
	})
	return a
}

func (p *parser) fail(really bool) { p.failed = p.failed || really }

func (p *parser) next() byte {
	if len(p.b) == 0 {
		p.failed = true
		return 0
	}
	return p.b[0]
}

func (p *parser) expect(c byte) {
	if p.next() != c {
		p.failed = true
		return
	}
	p.b = p.b[1:]
}

// object calls member for each key; it reads the value.
func (p *parser) object(member func(key []byte)) {
	p.expect('{')
	for !p.failed {
		key := p.text()
		p.expect(':')
		if p.failed {
			return
		}
		member(key)
		if p.next() == '}' {
			break
		}
		p.expect(',')
	}
	p.expect('}')
}

// list calls element for each element of a list that has some.
func (p *parser) list(element func()) {
	p.expect('[')
	for !p.failed {
		element()
		if p.next() == ']' {
			break
		}
		p.expect(',')
	}
	p.expect(']')
}

// text reads a string that needs no decoding. It lies in the buffer.
func (p *parser) text() []byte {
	p.expect('"')
	n := bytes.IndexByte(p.b, '"')
	if p.failed || n < 0 {
		p.failed = true
		return nil
	}
	s := p.b[:n]
	p.b = p.b[n+1:]
	ascii := true
	for _, c := range s {
		p.fail(c < 0x20 || c == '\\')
		ascii = ascii && c < utf8.RuneSelf
	}
	p.fail(!ascii && !utf8.Valid(s))
	return s
}

// bytes reads a string that is base64.
func (p *parser) bytes() []byte {
	s := p.text()
	b, err := base64.StdEncoding.AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(s))), s)
	p.fail(err != nil)
	return b
}

// number reads an integer of at most 18 digits; larger ones are rare.
func (p *parser) number() int64 {
	n, i := int64(0), 0
	negative := p.next() == '-'
	if negative {
		p.b = p.b[1:]
	}
	for ; i < len(p.b) && i < 19 && p.b[i] >= '0' && p.b[i] <= '9'; i++ {
		n = n*10 + int64(p.b[i]-'0')
	}
	if i == 0 || i > 18 || p.b[0] == '0' && i > 1 {
		p.failed = true
		return 0
	}
	p.b = p.b[i:]
	if negative {
		return -n
	}
	return n
}

func (p *parser) number64() uint64 {
	n := p.number()
	p.fail(n < 0)
	return uint64(n)
}

func (p *parser) number32() uint32 {
	n := p.number()
	p.fail(n != int64(uint32(n)))
	return uint32(n)
}

// value skips a value and returns it.
func (p *parser) value() []byte {
	n := valueEnd(p.b)
	if n < 0 {
		p.failed = true
		return nil
	}
	v := p.b[:n]
	p.b = p.b[n:]
	return v
}

// valueEnd returns how many bytes the JSON value at the start of b has, -1 when
// it does not end there. It does not look whether the value is a valid one.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := stringEnd(b[i:])
			if n < 0 {
				return -1
			}
			i += n - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// stringEnd is valueEnd for a string.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}
