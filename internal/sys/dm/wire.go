package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The layout of struct dm_ioctl and of what follows it (linux/dm-ioctl.h). The
// kernel and this program have the same byte order.
const (
	headSize = 312
	specSize = 40

	offVersion = 0 // 3 × 32 bits
	offSize    = 12
	offStart   = 16
	offTargets = 20
	offOpen    = 24
	offFlags   = 28
	offEvent   = 32 // of what goes in: the cookie, with the flags for udev in its high half
	offDev     = 40
	offName    = 48
	offUUID    = 176

	nameLength = 128 // with the NUL at the end
	uuidLength = 129
	typeLength = 16
)

// The version of the interface that is spoken: 4.0.0 is what every kernel takes.
const versionMajor = 4

// Flags of struct dm_ioctl.
const (
	flagReadOnly   = 1 << 0
	flagSuspend    = 1 << 1
	flagTable      = 1 << 4 // of TABLE_STATUS: the table and not its state
	flagLive       = 1 << 5
	flagLoaded     = 1 << 6
	flagFull       = 1 << 8 // the answer did not fit
	flagSkipLockFS = 1 << 10
	flagNoFlush    = 1 << 11
	flagSlot       = 1 << 12 // of TABLE_STATUS: the table in the slot
	flagSecure     = 1 << 15 // the kernel wipes its copies, and at once ours, too
	flagDeferred   = 1 << 17
)

var native = binary.NativeEndian

// A request is one call: what goes in, and where the answer goes.
type request struct {
	name, uuid string
	number     Number // where neither name nor UUID is given
	flags      uint32
	udev       UdevFlags
	table      []Target // for TABLE_LOAD
	extra      []byte   // for TARGET_MSG
	room       int      // for the answer, beyond the head
	bare       bool     // no key goes either way; see flagSecure
}

// encode makes the buffer of a request.
func (r request) encode() ([]byte, error) {
	if len(r.name) >= nameLength || len(r.uuid) >= uuidLength {
		return nil, fmt.Errorf("name or UUID of %d and %d bytes is too long", len(r.name), len(r.uuid))
	}
	b := make([]byte, headSize, headSize+max(r.room, specSize*len(r.table)))
	native.PutUint32(b[offVersion:], versionMajor)
	native.PutUint32(b[offStart:], headSize)
	native.PutUint32(b[offTargets:], uint32(len(r.table)))
	if !r.bare {
		r.flags |= flagSecure
	}
	native.PutUint32(b[offFlags:], r.flags)
	native.PutUint32(b[offEvent:], uint32(r.udev)<<16)
	switch {
	case r.uuid != "" && r.name == "":
		copy(b[offUUID:], r.uuid)
	case r.name != "":
		copy(b[offName:], r.name)
		copy(b[offUUID:], r.uuid) // of CREATE, which has both
	default:
		native.PutUint64(b[offDev:], r.number.encode())
	}
	for _, t := range r.table {
		if len(t.Type) >= typeLength {
			return nil, fmt.Errorf("target type %q is too long", t.Type)
		}
		size := (specSize + len(t.Params) + 1 + 7) &^ 7
		spec := make([]byte, size)
		native.PutUint64(spec[0:], t.Start)
		native.PutUint64(spec[8:], t.Length)
		native.PutUint32(spec[20:], uint32(size)) // to the next one, from this one
		copy(spec[24:], t.Type)
		copy(spec[specSize:], t.Params)
		b = append(b, spec...)
	}
	b = append(b, r.extra...)
	if rest := headSize + r.room - len(b); rest > 0 {
		b = append(b, make([]byte, rest)...)
	}
	native.PutUint32(b[offSize:], uint32(len(b)))
	return b, nil
}

// encode is the kernel's huge_encode_dev (linux/kdev_t.h).
func (n Number) encode() uint64 {
	return uint64(n.Minor&0xff) | uint64(n.Major&0xfff)<<8 | uint64(n.Minor&^0xff)<<12 | uint64(n.Major&^0xfff)<<32
}

func decodeNumber(dev uint64) Number {
	return Number{Major: uint32(dev>>8)&0xfff | uint32(dev>>32)&^0xfff, Minor: uint32(dev&0xff) | uint32(dev>>12)&^0xff}
}

// device reads the head of an answer.
func device(b []byte) Device {
	flags := native.Uint32(b[offFlags:])
	return Device{
		Name: text(b[offName : offName+nameLength]), UUID: text(b[offUUID : offUUID+uuidLength]),
		Number: decodeNumber(native.Uint64(b[offDev:])), Open: int(int32(native.Uint32(b[offOpen:]))),
		Suspended: flags&flagSuspend != 0, Live: flags&flagLive != 0, Loaded: flags&flagLoaded != 0,
		ReadOnly: flags&flagReadOnly != 0, Event: native.Uint32(b[offEvent:]),
	}
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

var errCut = errors.New("the answer of device-mapper ends too early")

// targets reads the answer of TABLE_STATUS. Here the way to the next one is
// counted from the beginning of all.
func targets(b []byte) ([]Target, error) {
	var all []Target
	start := int(native.Uint32(b[offStart:]))
	at := start
	for range native.Uint32(b[offTargets:]) {
		if at < headSize || at+specSize > len(b) {
			return nil, errCut
		}
		next := start + int(native.Uint32(b[at+20:]))
		end := min(max(next, at+specSize), len(b))
		all = append(all, Target{
			Start: native.Uint64(b[at:]), Length: native.Uint64(b[at+8:]),
			Type: text(b[at+24 : at+24+typeLength]), Params: text(b[at+specSize : end]),
		})
		at = next
	}
	return all, nil
}

// names reads the answer of LIST_DEVICES: for each one its number, the way to
// the next, and its name.
func names(b []byte) ([]Device, error) {
	var all []Device
	for at := int(native.Uint32(b[offStart:])); ; {
		if at < headSize || at+12 > len(b) {
			return nil, errCut
		}
		dev, next := native.Uint64(b[at:]), int(native.Uint32(b[at+8:]))
		if dev == 0 {
			return all, nil // there are none
		}
		all = append(all, Device{Number: decodeNumber(dev), Name: text(b[at+12:])})
		if next == 0 {
			return all, nil
		}
		at += next
	}
}
