//go:build vm

package dm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/sys/dm"
)

// A kind makes n devices of device-mapper, each of so many MiB.
type kind func(tb testing.TB, dir string, n int, size int64) (nodes []string)

var serial int

// name is of a device, volume group or logical volume that the test makes.
func name(what string) string {
	serial++
	return fmt.Sprintf("test%d%s%d", os.Getpid(), what, serial)
}

// plain are linear devices with nothing around them.
func plain(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	c := control(tb)
	for range n {
		id := name("plain")
		over := disk(tb, dir, id, size)
		b, err := os.ReadFile("/sys/block/" + filepath.Base(over) + "/dev")
		if err != nil {
			tb.Fatal(err)
		}
		d, err := c.Create(id, "")
		if err == nil {
			tb.Cleanup(func() {
				if err := removeDevice(c, d); err != nil {
					tb.Error(err)
				}
			})
			err = c.Load(d.Number, []dm.Target{{Length: uint64(size) << 11, Type: "linear", Params: strings.TrimSpace(string(b)) + " 0"}}, false)
		}
		if err == nil {
			err = c.Resume(d.Number, 0)
		}
		if err != nil {
			tb.Fatal(err)
		}
		nodes = append(nodes, d.Node())
	}
	return nodes
}

// group makes a volume group on so many disks.
func group(tb testing.TB, dir string, disks int, size int64) string {
	vg := name("vg")
	var pvs []string
	for i := range disks {
		pvs = append(pvs, disk(tb, dir, fmt.Sprintf("%s-%d", vg, i), size))
	}
	run(tb, "vgcreate", append([]string{"-q", "--yes", vg}, pvs...)...)
	undo(tb, "vgremove", "-q", "--force", "--yes", vg)
	return vg
}

func lv(tb testing.TB, vg string, args ...string) string {
	id := "lv-" + name("v")
	run(tb, "lvcreate", append([]string{"-q", "--yes", "--wipesignatures", "n", "--name", id}, append(args, vg)...)...)
	return "/dev/" + vg + "/" + id
}

// linear are logical volumes; there is no free extent left in their group.
func linear(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	vg := group(tb, dir, 1, int64(n)*size+4)
	for range n {
		nodes = append(nodes, lv(tb, vg, "--size", fmt.Sprint(size, "m")))
	}
	return nodes
}

func striped(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	vg := group(tb, dir, 2, int64(n)*size/2+16)
	for range n {
		nodes = append(nodes, lv(tb, vg, "--stripes", "2", "--size", fmt.Sprint(size, "m")))
	}
	return nodes
}

// luks are containers on logical volumes, with their keys in the table.
func luks(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		tb.Fatal(err)
	}
	for _, over := range linear(tb, dir, n, size+16) {
		nodes = append(nodes, opened(tb, over, key, "--disable-keyring"))
	}
	return nodes
}

func opened(tb testing.TB, over, key string, args ...string) string {
	id := name("luks")
	run(tb, "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", over, key)
	run(tb, "cryptsetup", append([]string{"open", "--key-file", key, over, id}, args...)...)
	undo(tb, "cryptsetup", "close", id)
	return "/dev/mapper/" + id
}

func thin(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	vg := group(tb, dir, 1, int64(n)*size+128)
	pool := name("pool")
	run(tb, "lvcreate", "-q", "--yes", "--type", "thin-pool", "--name", pool, "--size", fmt.Sprint(int64(n)*size+32, "m"), "--poolmetadatasize", "8m", vg)
	for range n {
		id := name("v")
		run(tb, "lvcreate", "-q", "--yes", "--type", "thin", "--thinpool", pool, "--name", id, "--virtualsize", fmt.Sprint(size, "m"), vg)
		nodes = append(nodes, "/dev/"+vg+"/"+id)
	}
	return nodes
}
