package volume

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEFI tells the EFI system partition from other FAT file systems.
func TestEFI(t *testing.T) {
	const esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	for _, c := range []struct {
		name, point, fsType, udev, gpt string
		want                           Kind
	}{
		{"by place", "/boot/efi", "vfat", "", "", EFI},
		{"by the other place", "/efi", "vfat", "", "", EFI},
		{"by place, whatever the type", "/efi", "vfat", "E:ID_PART_ENTRY_TYPE=0xc\n", "", EFI},
		{"elsewhere", "/efi/x", "vfat", "E:ID_PART_ENTRY_TYPE=0xc\n", "", Local},
		{"by udev", "/boot", "vfat", "E:ID_PART_ENTRY_TYPE=" + esp + "\n", "", EFI},
		{"by udev, upper case", "/boot", "vfat", "E:ID_PART_ENTRY_TYPE=" + strings.ToUpper(esp) + "\n", "", EFI},
		{"by udev, MBR", "/boot", "vfat", "E:ID_PART_ENTRY_TYPE=0xef\n", "", EFI},
		{"udev is asked before the disk", "/boot", "vfat", "E:ID_PART_ENTRY_TYPE=0xc\n", esp, Local},
		{"by the disk", "/boot", "vfat", "E:ID_FS_TYPE=vfat\n", esp, EFI},
		{"by the disk, old type", "/boot", "msdos", "", esp, EFI},
		{"by the disk, another", "/boot", "vfat", "", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", Local},
		{"no GPT", "/boot", "vfat", "", "", Local},
		{"no FAT", "/boot/efi", "ext4", "E:ID_PART_ENTRY_TYPE=" + esp + "\n", esp, Local},
	} {
		t.Run(c.name, func(t *testing.T) {
			roots := manyMounts(t, 1, "%d 1 8:%d / "+c.point+" rw - "+c.fsType+" /dev/sda10 rw")
			roots.Probe = &recordedProbe{asked: map[string]bool{}, Partitions: map[string]string{"sda 8:0 10": c.gpt},
				Superblocks: map[string]map[string]string{"sda10 8:10": nil}, FileSystems: map[string]Facts{c.point: {}, "/": {}}}
			disk := filepath.Join(roots.Sys, "devices/sda")
			writeFile(t, filepath.Join(disk, "dev"), "8:0\n")
			writeFile(t, filepath.Join(disk, "sda10/dev"), "8:10\n")
			writeFile(t, filepath.Join(disk, "sda10/partition"), "10\n")
			for number, target := range map[string]string{"8:0": "sda", "8:10": "sda/sda10"} {
				link(t, "../../devices/"+target, filepath.Join(roots.Sys, "dev/block", number))
			}
			if c.udev != "" {
				writeFile(t, filepath.Join(roots.Udev, "b8:10"), c.udev)
			}
			table := readHost(t, recordedHost{Roots: roots})
			v, _, _, err := table.Find(c.point)
			if err != nil || v.Kind != c.want || len(table.Warnings()) > 0 {
				t.Errorf("got %s, %v, %v, want %s", v.Kind, err, table.Warnings(), c.want)
			}
		})
	}
}

// TestIdentify: the file system knows best, then udev, then the device.
func TestIdentify(t *testing.T) {
	const udev = "E:ID_FS_UUID=BB-UDEV\nE:ID_FS_LABEL=of_udev\nE:ID_FS_LABEL_ENC=of\\x20udev\\x2\n"
	super := map[string]string{"UUID": "cc-super", "Label": "of superblock"}
	for _, c := range []struct {
		name, fsType string
		facts        Facts
		udev         string
		super        map[string]string
		uuid, label  string
	}{
		{"all by itself", "ext4", Facts{UUID: "aa", Label: "own", Final: true}, udev, super, "aa", "own"},
		{"label of another file system", "ext4", Facts{UUID: "aa", Final: true}, udev, super, "aa", ""},
		{"label by udev", "ext4", Facts{UUID: "bb-udev", Final: true}, udev, super, "bb-udev", "of udev\\x2"},
		{"all by udev", "ext4", Facts{}, udev, super, "bb-udev", "of udev\\x2"},
		{"has none", "ext4", Facts{Final: true}, udev, super, "", ""},
		{"by superblock", "ext4", Facts{}, "", super, "cc-super", "of superblock"},
		{"by superblock, not readable", "f2fs", Facts{}, "", super, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			roots := manyMounts(t, 1, "%d 1 8:%d / /m rw - "+c.fsType+" /dev/sda10 rw")
			roots.Probe = &recordedProbe{asked: map[string]bool{}, FileSystems: map[string]Facts{"/": {}, "/m": c.facts},
				Superblocks: map[string]map[string]string{"sda10 8:10": c.super}}
			writeFile(t, filepath.Join(roots.Sys, "devices/sda10/dev"), "8:10\n")
			link(t, "../../devices/sda10", filepath.Join(roots.Sys, "dev/block/8:10"))
			if c.udev != "" {
				writeFile(t, filepath.Join(roots.Udev, "b8:10"), c.udev)
			}
			v, _, _, err := readHost(t, recordedHost{Roots: roots}).Find("/m")
			if err != nil || v.UUID != c.uuid || v.Label != c.label {
				t.Errorf("got %q %q, %v, want %q %q", v.UUID, v.Label, err, c.uuid, c.label)
			}
		})
	}
}

func TestWithin(t *testing.T) {
	called := false
	f := func() (int, error) { called = true; return 7, nil }
	if n, err := within(context.Background(), time.Minute, f); n != 7 || err != nil || !called {
		t.Errorf("got %d, %v", n, err)
	}
	called = false
	if n, err := within(context.Background(), 0, f); n != 0 || !errors.Is(err, errNoAnswer) || called {
		t.Errorf("without time: got %d, %v, called %v", n, err, called)
	}
}

func TestComparePaths(t *testing.T) {
	want := []string{"/", "/a", "/a/b", "/a/b/c", "/a/c", "/a b", "/a-b", "/ab", "/ab/c", "/b"}
	for seed := range len(want) {
		got := slices.Concat(want[seed:], want[:seed])
		slices.SortFunc(got, comparePaths)
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	}
}

func TestContains(t *testing.T) {
	for _, c := range []struct {
		dir, path string
		want      bool
	}{
		{"/", "/", true}, {"/", "/a", true}, {"/a", "/a", true}, {"/a", "/a/b", true}, {"/a", "/ab", false},
		{"/a/b", "/a", false}, {"/a", "/", false}, {"/a", "/b/a", false},
	} {
		if got := contains(c.dir, c.path); got != c.want {
			t.Errorf("contains(%q, %q) = %v", c.dir, c.path, got)
		}
	}
}

// TestRootOrder: the initial root may come after what covers it.
func TestRootOrder(t *testing.T) {
	const rootfs, root = "1 1 0:2 / / rw - rootfs rootfs rw\n", "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	const sub = "31 30 8:2 / /a rw - ext4 /dev/sda2 rw\n"
	for _, text := range []string{rootfs + root + sub, sub + root + rootfs, root + rootfs + sub, root + sub} {
		records, _ := parseMountinfo(text)
		r := &reader{}
		r.group(records)
		for path, want := range map[string]int{"/": 30, "/b": 30, "/a": 31, "/a/b": 31} {
			if n := r.tree.at(path); n == nil || n.mount.ID != want {
				t.Errorf("%q: %q is shown by %+v, want mount %d", text, path, n, want)
			}
		}
	}
	r := &reader{}
	records, _ := parseMountinfo(sub) // a chroot into a directory that is no mount
	r.group(records)
	if n := r.tree.at("/a"); n != nil {
		t.Errorf("without a root: got %+v", n)
	}
}
