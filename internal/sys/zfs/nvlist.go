package zfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A list is an nvlist, in which ZFS takes arguments and gives answers, as pairs
// in their order. It is packed in the form that is called native: the kernel's own
// structures one after the other, in the byte order of the machine
// (module/nvpair/nvpair.c, nvs_native_*). The values are those of Go: nil for a
// boolean that is true by being there, bool, int32, uint64, string, list; others
// are not written, and skipped when they are read.
type list []pair

type pair struct {
	name  string
	value any
}

// data_type_t (include/sys/nvpair.h).
const (
	typeBoolean      = 1
	typeInt32        = 5
	typeUint64       = 8
	typeString       = 9
	typeList         = 19
	typeBooleanValue = 21
)

const (
	packedNative = 0 // NV_ENCODE_NATIVE
	uniqueNames  = 1 // NV_UNIQUE_NAME
	pairHeader   = 16
	listHeader   = 24 // nvlist_t
	deepest      = 16
)

// pack is the list as the kernel reads it.
func (l list) pack() []byte {
	b := []byte{packedNative, endian(), 0, 0}
	b = number(b, 0) // NV_VERSION
	b = number(b, uniqueNames)
	return l.pairs(b)
}

// endian is 1 where the lower byte comes first.
func endian() byte { return byte(binary.NativeEndian.Uint16([]byte{1, 0}) & 1) }

func number(b []byte, n int) []byte {
	return binary.NativeEndian.AppendUint32(b, uint32(n))
}

// pairs adds the pairs, and the end of the list.
func (l list) pairs(b []byte) []byte {
	for _, p := range l {
		b = p.pack(b)
	}
	return number(b, 0)
}

func (p pair) pack(b []byte) []byte {
	typ, elements, value := p.encode()
	name := len(p.name) + 1
	size := align(pairHeader+name) + align(len(value))
	b = number(b, size)
	b = binary.NativeEndian.AppendUint16(b, uint16(name))
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = number(b, elements)
	b = number(b, typ)
	b = append(b, p.name...)
	b = pad(append(b, 0), align(pairHeader+name)-pairHeader-name)
	b = pad(append(b, value...), align(len(value))-len(value))
	if l, ok := p.value.(list); ok {
		b = l.pairs(b)
	}
	return b
}

func (p pair) encode() (typ, elements int, value []byte) {
	switch v := p.value.(type) {
	case nil:
		return typeBoolean, 0, nil
	case bool:
		n := 0
		if v {
			n = 1
		}
		return typeBooleanValue, 1, number(nil, n)
	case int32:
		return typeInt32, 1, number(nil, int(v))
	case uint64:
		return typeUint64, 1, binary.NativeEndian.AppendUint64(nil, v)
	case string:
		return typeString, 1, append([]byte(v), 0)
	case list:
		return typeList, 1, pad(number(number(nil, 0), uniqueNames), listHeader-8)
	}
	panic(fmt.Sprintf("nvlist: %s is a %T", p.name, p.value))
}

func align(n int) int { return (n + 7) &^ 7 }

func pad(b []byte, n int) []byte { return append(b, make([]byte, n)...) }

var errPacked = errors.New("not a packed nvlist as this machine's kernel makes it")

// unpack reads what pack, or the kernel, has written.
func unpack(b []byte) (list, error) {
	if len(b) < 12 || b[0] != packedNative || b[1] != endian() {
		return nil, errPacked
	}
	l, _, err := unpackPairs(b[12:], 0)
	return l, err
}

// unpackPairs reads to the end of one list, and returns what comes after it.
func unpackPairs(b []byte, depth int) (l list, rest []byte, err error) {
	for {
		if len(b) < 4 || depth > deepest {
			return nil, nil, errPacked
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size == 0 {
			return l, b[4:], nil
		}
		if size < pairHeader || size > len(b) {
			return nil, nil, errPacked
		}
		p, typ, value, err := header(b[:size])
		if err != nil {
			return nil, nil, err
		}
		b = b[size:]
		known := true
		if typ == typeList {
			p.value, b, err = unpackPairs(b, depth+1)
		} else {
			p.value, known, err = decode(typ, value)
		}
		if err != nil {
			return nil, nil, err
		}
		if known {
			l = append(l, p)
		}
	}
}

// header takes one pair apart.
func header(b []byte) (p pair, typ int, value []byte, err error) {
	name := int(binary.NativeEndian.Uint16(b[4:]))
	at := align(pairHeader + name)
	if name < 1 || at > len(b) || b[pairHeader+name-1] != 0 {
		return pair{}, 0, nil, errPacked
	}
	return pair{name: string(b[pairHeader : pairHeader+name-1])}, int(binary.NativeEndian.Uint32(b[12:])), b[at:], nil
}

// decode is the value of a pair, where that is of a type that is known here. What
// holds more lists (an array of them) would have to be, to be skipped.
func decode(typ int, b []byte) (value any, known bool, err error) {
	const arrayOfLists = 20
	switch {
	case typ == typeBoolean:
		return nil, true, nil
	case typ == arrayOfLists:
		return nil, false, fmt.Errorf("%w: it has an array of lists", errPacked)
	case typ == typeBooleanValue && len(b) >= 4:
		return binary.NativeEndian.Uint32(b) != 0, true, nil
	case typ == typeInt32 && len(b) >= 4:
		return int32(binary.NativeEndian.Uint32(b)), true, nil
	case typ == typeUint64 && len(b) >= 8:
		return binary.NativeEndian.Uint64(b), true, nil
	case typ == typeString:
		for i, c := range b {
			if c == 0 {
				return string(b[:i]), true, nil
			}
		}
		return nil, false, errPacked
	case typ == typeBooleanValue, typ == typeInt32, typ == typeUint64:
		return nil, false, errPacked
	}
	return nil, false, nil
}

// get is the value with a name, nil where there is none.
func (l list) get(name string) any {
	for _, p := range l {
		if p.name == name {
			return p.value
		}
	}
	return nil
}
