package volume

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseRecord(t *testing.T) {
	for _, c := range []struct {
		line string
		want record
	}{
		{`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`,
			record{36, 35, "98:0", "/mnt1", "/mnt2", []string{"rw", "noatime"}, "ext3", "/dev/root", []string{"rw", "errors=continue"}}},
		{`36 35 98:0 / / rw shared:7 master:1 propagate_from:3 unbindable - ext3 /dev/root rw`,
			record{36, 35, "98:0", "/", "/", []string{"rw"}, "ext3", "/dev/root", []string{"rw"}}},
		{`71 43 0:45 / /nosrc rw,relatime - tmpfs  rw`, // mount -t tmpfs '' /nosrc
			record{71, 43, "0:45", "/", "/nosrc", []string{"rw", "relatime"}, "tmpfs", "", []string{"rw"}}},
		{`70 43 0:44 / /h#sh rw - tmpfs so\043u\040ce\134 rw`,
			record{70, 43, "0:44", "/", "/h#sh", []string{"rw"}, "tmpfs", `so#u ce\`, []string{"rw"}}},
		{`1 2 0:3 / /a\012b\011c\134040 rw - x y rw`,
			record{1, 2, "0:3", "/", "/a\nb\tc\\040", []string{"rw"}, "x", "y", []string{"rw"}}},
		{`1 2 0:3 / /-\040-\040x rw - x y rw,subvol=/a,b`, // "subvol" means nothing but in btrfs
			record{1, 2, "0:3", "/", "/- - x", []string{"rw"}, "x", "y", []string{"rw", "subvol=/a", "b"}}},
		{`66 43 0:39 /@/a,b\040c/d /n rw - btrfs /dev/loop0 rw,subvolid=257,subvol=/@/a\054b\040c`,
			record{66, 43, "0:39", "/@/a,b c/d", "/n", []string{"rw"}, "btrfs", "/dev/loop0", []string{"rw", "subvolid=257", "subvol=/@/a,b c"}}},
		{`66 43 0:39 /@ /n rw - btrfs /dev/loop0 rw,subvolid=257,subvol=/a,subvol=/b,c`, // older kernels escape no comma
			record{66, 43, "0:39", "/@", "/n", []string{"rw"}, "btrfs", "/dev/loop0", []string{"rw", "subvolid=257", "subvol=/a,subvol=/b,c"}}},
	} {
		got, ok := parseRecord(c.line)
		if !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", c.line, got, ok, c.want)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	for _, line := range []string{
		"", " ", "-", " - ", "36", "36 35 98:0 / / rw", "36 35 98:0 / / rw -", "36 35 98:0 / / rw - ext4", "36 35 98:0 / / rw - ext4 /dev/sda",
		"x 35 98:0 / / rw - ext4 /dev/sda rw", "36 35 98 / / rw - ext4 /dev/sda rw", "36 35 :0 / / rw - ext4 /dev/sda rw",
		"36 35 98:0 / relative rw - ext4 /dev/sda rw", "36 35 98:0 / / rw -  /dev/sda rw", "36 35 98:0 / / rw shared:1 ext4 /dev/sda rw",
	} {
		if r, ok := parseRecord(line); ok {
			t.Errorf("%q was read as %+v", line, r)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		``: ``, `\`: `\`, `\0`: `\0`, `\04`: `\04`, `\040`: ` `, `\\040`: `\ `, `\134040`: `\040`, `\0400`: ` 0`,
		`\400`: `\400`, `\377`: "\xff", `\08`: `\08`, `\089`: `\089`, `\0_1`: `\0_1`, `\+40`: `\+40`, `a\040\011b`: "a \tb",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPart(t *testing.T) {
	for _, c := range []struct {
		root, top, path string
		deleted         bool
	}{
		{"/", "/", "/", false},
		{"/a/b", "/", "/a/b", false},
		{"/a//deleted", "/", "/a", true},
		{"//deleted", "/", "/", true},
		{"/a (deleted)", "/", "/a (deleted)", false}, // a name: see part
		{"/@", "/@", "/", false},
		{"/@/a", "/@", "/a", false},
		{"/@home", "/@", "/@home", true}, // not in the subvolume after all
		{"/@//deleted", "/@", "/", true},
		{"/@/a//deleted", "/@", "/a", true},
		{"/a", "", "/a", true},
		{"net:[4026532281]", "/", "net:[4026532281]", false},
	} {
		if path, deleted := part(c.root, c.top); path != c.path || deleted != c.deleted {
			t.Errorf("part(%q, %q) = %q, %v, want %q, %v", c.root, c.top, path, deleted, c.path, c.deleted)
		}
	}
}

// escape writes what seq_escape() in the kernel would.
func escape(s, chars string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(chars, c) >= 0 {
			fmt.Fprintf(&b, "\\%03o", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// TestRecordRoundTrip writes any mount as the kernel would (show_mountinfo()
// in fs/proc_namespace.c) and reads it again.
func TestRecordRoundTrip(t *testing.T) {
	name := rapid.Map(rapid.SliceOf(rapid.ByteRange(1, 255)), func(b []byte) string { return string(b) })
	plain := rapid.StringMatching(`[a-z0-9=_.:+-]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		want := record{
			id: rapid.IntRange(0, 1<<31).Draw(t, "id"), parent: rapid.IntRange(0, 1<<31).Draw(t, "parent"),
			device: fmt.Sprintf("%d:%d", rapid.Uint16().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")),
			root:   "/" + name.Draw(t, "root"), point: "/" + name.Draw(t, "point"),
			options: rapid.SliceOfN(plain, 1, 5).Draw(t, "options"),
			fsType:  rapid.StringMatching(`[a-z0-9.]{1,8}`).Draw(t, "type"), source: name.Draw(t, "source"),
			super: rapid.SliceOfN(rapid.Map(name, func(s string) string { return "o=" + s }), 1, 5).Draw(t, "super"),
		}
		super := make([]string, len(want.super))
		for i, o := range want.super {
			super[i] = escape(o, ", \t\n\\")
		}
		if rapid.Bool().Draw(t, "btrfs") {
			want.fsType = "btrfs"
			path := "/" + name.Draw(t, "subvolume")
			want.super = append(want.super, "subvolid=7", "subvol="+path)
			super = append(super, "subvolid=7", "subvol="+escape(path, " \t\n\\"))
		}
		optional := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"shared:3 ", "master:4 ", "unbindable "}), 0, 3).Draw(t, "optional"), "")
		line := fmt.Sprintf("%d %d %s %s %s %s %s- %s %s %s", want.id, want.parent, want.device, escape(want.root, " \t\n\\"),
			escape(want.point, " \t\n\\"), strings.Join(want.options, ","), optional, want.fsType,
			escape(want.source, " \t\n\\#"), strings.Join(super, ","))
		got, bad := parseMountinfo(line + "\n")
		if len(bad) > 0 || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Fatalf("%q:\n got %+v %v\nwant %+v", line, got, bad, want)
		}
	})
}

// FuzzMountinfo reads any text, builds the tree of it and looks things up.
func FuzzMountinfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", "/mnt2/x")
	f.Add("1 1 0:2 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n3 2 0:3 / /a\\040b rw - btrfs x rw,subvol=/@\n", "/a b")
	f.Add("1 2 0:2 / / rw - x x rw\n2 1 0:3 / / rw - x x rw\n3 2 0:4 / / rw - x x rw\n", "//a/")
	f.Add("1 0 0:2 / / rw - x x rw\n2 3 0:3 / /a rw - x x rw\n3 2 0:4 / /a rw - x x rw\n2 1 0:4 / /a rw - x x rw\n", "/a")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, text, path string) {
		records, _ := parseMountinfo(text)
		r := &reader{}
		r.group(records)
		mounts := 0
		for _, v := range r.volumes {
			mounts += len(v.Mounts)
		}
		if mounts != len(records) {
			t.Fatalf("%d mounts of %d records", mounts, len(records))
		}
		table := &Table{volumes: r.volumes, tree: r.tree}
		for _, b := range table.Below("/") {
			if n := table.tree.at(b.Mount.Point); n == nil || n.mount.ID != b.Mount.ID {
				t.Fatalf("%q is not shown by mount %d", b.Mount.Point, b.Mount.ID)
			}
		}
		if n := table.tree.at(path); n != nil {
			r.behindServer(n.mount.ID)
			relative(n.mount, path)
		}
		setIDs(r.volumes, nil)
	})
}
