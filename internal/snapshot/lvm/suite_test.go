//go:build vm

package lvm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// A group is a volume group on a loop device, with a thin pool.
type group struct{ name, dir string }

// newGroup makes one. Its size is that of the pool, in MiB.
func newGroup(tb testing.TB, size int) group {
	tb.Helper()
	scratch.NeedRoot(tb)
	dir, err := os.MkdirTemp("", "stillpoint-lvm-")
	if err != nil {
		tb.Fatal(err)
	}
	g := group{"sp" + strings.ToLower(filepath.Base(dir)[len("stillpoint-lvm-"):]), dir}
	image := dir + "/image"
	scratch.Run(tb, "truncate", "--size", fmt.Sprint(size+size/4+64, "M"), image)
	loop := strings.TrimSpace(scratch.Run(tb, "losetup", "--find", "--show", image))
	tb.Cleanup(func() {
		scratch.Run(tb, "vgremove", "--force", "--force", "--yes", "-q", "-q", g.name)
		scratch.Run(tb, "losetup", "--detach", loop)
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	scratch.Run(tb, "vgcreate", "--yes", "-q", "-q", g.name, loop)
	scratch.Run(tb, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", fmt.Sprint(size, "m"), "-n", "pool", g.name)
	return g
}

// thin makes a mounted file system on a thin volume.
func (g group) thin(tb testing.TB, name, fs string) snapshottest.Volume {
	tb.Helper()
	scratch.Run(tb, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "400m", "-n", name, g.name+"/pool")
	return g.mount(tb, name, fs)
}

func (g group) mount(tb testing.TB, name, fs string) snapshottest.Volume {
	tb.Helper()
	node, at := "/dev/"+g.name+"/"+name, g.dir+"/"+name
	scratch.Run(tb, "mkfs."+fs, "-q", node)
	if err := os.Mkdir(at, 0o755); err != nil {
		tb.Fatal(err)
	}
	scratch.Run(tb, "mount", node, at)
	tb.Cleanup(func() { scratch.Run(tb, "umount", at) })
	scratch.Run(tb, "udevadm", "settle")
	v, _ := scratch.Find(tb, at)
	return snapshottest.Volume{Dir: at, Volume: v}
}

// groupOf is the one that a volume is in.
func groupOf(v snapshottest.Volume) group {
	name, _, _ := strings.Cut(v.Volume.Stack[0].DMName, "-")
	return group{name, filepath.Dir(v.Dir)}
}

func suiteHost(fs string) snapshottest.Host {
	return snapshottest.Host{
		New: func(testing.TB) snapshot.Provider { return New(hostTable) },
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			g := newGroup(tb, 900)
			var vs []snapshottest.Volume
			for i := range n {
				vs = append(vs, g.thin(tb, fmt.Sprint("volume", i), fs))
			}
			return vs
		},
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "other", Kind: volume.Local, FSType: "ext4", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
		State:     func(tb testing.TB, vs []snapshottest.Volume) string { return describe(tb, groupOf(vs[0])) },
		LookAlike: lookAlike,
		Captures:  3,
		Guarded:   true,
		Limit:     20 * time.Minute,
		Points: []string{
			"lvm:place-made", "lvm:place-emptied", "lvm:snapshot-taken", "lvm:activated", "lvm:mounted", "lvm:releasing", "lvm:removed",
		},
	}
}

// describe lists logical volumes, devices, and what udev has made of them. A
// device that somebody has just closed may take a moment to go.
func describe(tb testing.TB, g group) string {
	tb.Helper()
	scratch.Run(tb, "udevadm", "settle")
	var devices string
	for range 50 {
		// It lists them all and then asks each, and fails where one has gone meanwhile.
		b, err := tool.Run(context.Background(), "dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,attr", "-S", "name=~^"+g.name+"-")
		devices = string(b)
		if err == nil && !strings.Contains(devices, upperSuffix) {
			break
		}
		if err != nil {
			devices = err.Error()
		}
		time.Sleep(20 * time.Millisecond)
	}
	links, _ := filepath.Glob("/dev/disk/by-uuid/*")
	for i, l := range links {
		to, _ := os.Readlink(l)
		links[i] += " " + to
	}
	return scratch.Run(tb, "lvs", "-a", "--noheadings", "-o", "lv_name,lv_uuid,lv_attr,lv_size,lv_tags,thin_id", g.name) + devices + strings.Join(links, "\n")
}

// lookAlike makes a volume with our tag and a name such as ours.
func lookAlike(tb testing.TB, v snapshottest.Volume, id string) func() string {
	g := groupOf(v)
	name := namePrefix + id + "-look"
	scratch.Run(tb, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "16m", "-n", name, "--addtag", tagOurs, "--addtag", tagSet+id, g.name+"/pool")
	look := func() string { return scratch.Run(tb, "lvs", "-o", "lv_uuid,lv_attr,lv_tags,thin_id", g.name+"/"+name) }
	was := look()
	return func() string {
		if is := look(); is != was {
			return "is\n" + is + "and was\n" + was
		}
		return ""
	}
}

func TestSuiteExt4(t *testing.T) { snapshottest.Run(t, suiteHost("ext4")) }
func TestSuiteXFS(t *testing.T)  { snapshottest.Run(t, suiteHost("xfs")) }

// reportOf reads a report of LVM's.
func reportOf(tb testing.TB, out string) []logical {
	tb.Helper()
	var r struct {
		Report []struct {
			LV []logical `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Report) == 0 {
		tb.Fatal(err, out)
	}
	return r.Report[0].LV
}
