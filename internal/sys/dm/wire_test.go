package dm

import (
	"encoding/hex"
	"strings"
	"testing"
)

// The head of a request, as linux/dm-ioctl.h has it on a little-endian machine.
func TestEncode(t *testing.T) {
	b, err := request{name: "name", uuid: "uuid", flags: flagReadOnly, udev: Alone, table: []Target{{Start: 1, Length: 2, Type: "linear", Params: "8:0 16"}}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != headSize+48 {
		t.Fatalf("%d bytes", len(b))
	}
	for _, c := range []struct {
		at   int
		want string
	}{
		{offVersion, "040000000000000000000000"},
		{offSize, "68010000"}, {offStart, "38010000"}, {offTargets, "01000000"},
		{offFlags, "01800000"}, {offEvent, "00006e00"},
		{offName, "6e616d6500"}, {offUUID, "7575696400"},
		{headSize, "0100000000000000" + "0200000000000000" + "00000000" + "30000000" + "6c696e65617200000000000000000000" + "383a302031360000"},
	} {
		if got := hex.EncodeToString(b[c.at : c.at+len(c.want)/2]); got != c.want {
			t.Errorf("at %d: %s, want %s", c.at, got, c.want)
		}
	}
	if got := ioctlOf(cmdSuspend); got != 0xc138fd06 {
		t.Errorf("ioctl %#x", got)
	}
	for _, r := range []request{{name: strings.Repeat("x", 128)}, {uuid: strings.Repeat("x", 129)}, {table: []Target{{Type: strings.Repeat("x", 16)}}}} {
		if _, err := r.encode(); err == nil {
			t.Error("what is too long is encoded")
		}
	}
}

func TestNumber(t *testing.T) {
	for _, n := range []Number{{253, 0}, {253, 255}, {253, 256}, {8, 1 << 19}, {4095, 1}} {
		if got := decodeNumber(n.encode()); got != n {
			t.Errorf("%v: got %v", n, got)
		}
		if got, err := ParseNumber(n.String()); err != nil || got != n {
			t.Errorf("%v: parsed %v, %v", n, got, err)
		}
	}
	if got := (Number{253, 257}).encode(); got != 0x10fd01 {
		t.Errorf("encoded %#x", got)
	}
	for _, s := range []string{"", "1", "1:", "1:2 ", "01:2", "a:b", "-1:2"} {
		if n, err := ParseNumber(s); err == nil {
			t.Errorf("%q: got %v", s, n)
		}
	}
}

func TestAnswers(t *testing.T) {
	b := make([]byte, headSize+120)
	native.PutUint32(b[offStart:], headSize)
	native.PutUint32(b[offTargets:], 2)
	put := func(at int, start, length uint64, next int, kind, params string) {
		native.PutUint64(b[at:], start)
		native.PutUint64(b[at+8:], length)
		native.PutUint32(b[at+20:], uint32(next))
		copy(b[at+24:], kind)
		copy(b[at+specSize:], params)
	}
	put(headSize, 0, 8, 56, "linear", "8:0 0")
	put(headSize+56, 8, 16, 112, "error", "")
	got, err := targets(b)
	want := []Target{{0, 8, "linear", "8:0 0"}, {8, 16, "error", ""}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, %v", got, err)
	}
	if Sectors(got) != 24 {
		t.Errorf("%d sectors", Sectors(got))
	}
	if _, err := targets(b[:headSize+60]); err == nil {
		t.Error("an answer that is cut is read")
	}
	l := make([]byte, headSize+48)
	native.PutUint32(l[offStart:], headSize)
	native.PutUint64(l[headSize:], Number{253, 0}.encode())
	native.PutUint32(l[headSize+8:], 24)
	copy(l[headSize+12:], "one")
	native.PutUint64(l[headSize+24:], Number{253, 1}.encode())
	copy(l[headSize+36:], "two")
	all, err := names(l)
	if err != nil || len(all) != 2 || all[0].Name != "one" || all[1].Name != "two" || all[1].Number.Minor != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if all, err := names(make([]byte, headSize+16)); err == nil && len(all) > 0 {
		t.Errorf("of none: %v", all)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(make([]byte, headSize+40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headSize {
			return
		}
		native.PutUint32(b[offTargets:], native.Uint32(b[offTargets:])%100)
		_, _ = targets(b)
		_, _ = names(b)
		_ = device(b)
	})
}

// What may hold a key is wiped by the kernel; what waits, and may be begun anew, is not.
func TestSecure(t *testing.T) {
	n := Number{253, 1}
	for what, c := range map[string]struct {
		request
		secure bool
	}{
		"resume":  {resuming(n, Alone), false},
		"suspend": {suspending(n), false},
		"load":    {loading(n, []Target{{Length: 8, Type: "error"}}, true), true},
		"table":   {looking(n, flagTable), true},
		"slot":    {looking(n, flagTable|flagSlot), true},
	} {
		b, err := c.encode()
		if is := native.Uint32(b[offFlags:])&(1<<15) != 0; err != nil || is != c.secure {
			t.Errorf("%s: secure is %v, %v", what, is, err)
		}
	}
}

// A request by UUID has neither number nor name.
func TestByUUID(t *testing.T) {
	r := resuming(Number{}, Alone)
	r.uuid = "uuid"
	b, err := r.encode()
	if err != nil || native.Uint64(b[offDev:]) != 0 || text(b[offName:offName+nameLength]) != "" || text(b[offUUID:offUUID+uuidLength]) != "uuid" {
		t.Errorf("%x, %v", b[offDev:], err)
	}
}
