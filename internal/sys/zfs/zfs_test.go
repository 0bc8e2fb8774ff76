package zfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// golden is what libnvpair of ZFS 2.3 packed on a machine that has the lower byte
// first (testdata/packed.c, linked with -lnvpair).
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/packed.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if all[name], err = hex.DecodeString(digits); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// What is packed here is what the library of ZFS packs.
func TestPacked(t *testing.T) {
	if endian() != 1 {
		t.Skip("skipped: this machine has the higher byte first, and what it would be compared with is of one that has the lower")
	}
	for name, got := range map[string][]byte{
		"empty":    list{}.pack(),
		"snapshot": NewSnapshotting("tank", []string{"tank@stillpoint-1", "tank/My Media@stillpoint-1"}, map[string]string{"stillpoint:set": "1 abcdef"}).args,
		"hold":     list{{"holds", list{{"tank@stillpoint-1", "stillpoint-1"}}}, {"cleanup_fd", int32(7)}}.pack(),
		"release":  list{{"tank@stillpoint-1", flags([]string{"stillpoint-1"})}}.pack(),
	} {
		if want := golden(t)[name]; !bytes.Equal(got, want) {
			t.Errorf("%s is\n%x, want\n%x", name, got, want)
		}
	}
}

// What the library packs is read, and what is of no known type skipped.
func TestStatsAreRead(t *testing.T) {
	if endian() != 1 {
		t.Skip("skipped: this machine has the higher byte first, and what is read is of one that has the lower")
	}
	l, err := unpack(golden(t)["stats"])
	if err != nil {
		t.Fatal(err)
	}
	s := stats(l)
	if s.GUID != 12345678901234567890 || s.Properties["stillpoint:set"] != "1 abcdef" || len(s.Properties) != 1 {
		t.Errorf("%+v of %v", s, l)
	}
	if l.get("yes") != true || l.get("array") != nil || l.get("short") != nil {
		t.Errorf("%v", l)
	}
}

func TestPackAndUnpack(t *testing.T) {
	in := list{{"a", nil}, {"bb", true}, {"ccc", int32(-5)}, {"dddddddd", uint64(1) << 63}, {"e", ""}, {"f", list{{"g", "h"}, {"i", list{}}}}, {"z", "last"}}
	out, err := unpack(in.pack())
	if err != nil || !bytes.Equal(out.pack(), in.pack()) {
		t.Errorf("%v, %v", out, err)
	}
	s := stats(list{{"creation", list{{"value", uint64(5)}}}, {"createtxg", list{{"value", uint64(6)}}}, {"name", list{{"value", "x"}}}})
	if !s.Created.Equal(time.Unix(5, 0)) || s.CreateTXG != 6 || len(s.Properties) != 0 {
		t.Errorf("%+v", s)
	}
}

// No answer, however damaged, is more than an error.
func FuzzUnpack(f *testing.F) {
	text, err := os.ReadFile("testdata/packed.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, _ := hex.DecodeString(digits)
		f.Add(b)
	}
	deep := list{}
	for range 100 {
		deep = list{{"deep", deep}}
	}
	f.Add(deep.pack())
	f.Fuzz(func(_ *testing.T, b []byte) {
		l, err := unpack(b)
		if err == nil {
			_ = stats(l)
		}
	})
}

func TestUnpackRefuses(t *testing.T) {
	good := list{{"name", "value"}}.pack()
	for what, change := range map[string]func([]byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"XDR":              func(b []byte) []byte { b[0] = 1; return b },
		"other byte order": func(b []byte) []byte { b[1] ^= 1; return b },
		"cut":              func(b []byte) []byte { return b[:len(b)-5] },
		"size":             func(b []byte) []byte { binary.NativeEndian.PutUint32(b[12:], 1<<30); return b },
		"negative size":    func(b []byte) []byte { binary.NativeEndian.PutUint32(b[12:], 1<<31+16); return b },
		"long name":        func(b []byte) []byte { binary.NativeEndian.PutUint16(b[16:], 1<<15); return b },
	} {
		if l, err := unpack(change(bytes.Clone(good))); !errors.Is(err, errPacked) {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
}

func TestFailures(t *testing.T) {
	var err error = Failures{"tank/b@x": syscall.ENOENT, "tank/a@x": syscall.EBUSY}
	if !errors.Is(err, syscall.ENOENT) || !errors.Is(err, syscall.EBUSY) || err.Error() != "tank/a@x: device or resource busy; tank/b@x: no such file or directory" {
		t.Error(err)
	}
}
