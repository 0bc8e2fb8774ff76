//go:build zfs

package zfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// suiteHost takes datasets of one pool, in which others are mounted.
func suiteHost() snapshottest.Host {
	h := snapshottest.Host{
		New: func(testing.TB) snapshot.Provider { return provider() },
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			p := newPool(tb, "-O", "recordsize=64K") // clones are of whole records
			var vs []snapshottest.Volume
			for i := range n {
				name := fmt.Sprint("volume", i)
				p.zfs("create", p.name+"/"+name)
				vs = append(vs, snapshottest.Volume{Dir: filepath.Join(p.dir, name), Volume: p.volume(name)})
			}
			return vs
		},
		Folder: child,
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "other", Kind: volume.Local, FSType: "ext4", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
		State: func(tb testing.TB, vs []snapshottest.Volume) string {
			pool := poolOf(vs[0].Volume.Source)
			return scratch.Run(tb, "zfs", "list", "-H", "-r", "-t", "all", "-o", "name,guid,userrefs", pool) + recordNames(tb)
		},
		LookAlike: lookAlike,
		Points:    fault.OfZFS,
		Limit:     10 * time.Minute, // in a machine without acceleration
		Known: map[string]string{
			"open-reader": "ZFS destroys no snapshot of which a file is open",
		},
	}
	if version, err := os.ReadFile("/sys/module/zfs/version"); err != nil || strings.HasPrefix(string(version), "2.1.") {
		h.Known["later-exchange"] = "ZFS exchanges names from 2.2 on (RENAME_EXCHANGE)"
	}
	return h
}

// child makes a dataset in the one that a path lies in, and mounts it there.
func child(tb testing.TB, path string) {
	outer, rel := scratch.Find(tb, filepath.Dir(path))
	name := strings.ReplaceAll(filepath.Join(rel, filepath.Base(path)), "/", "-")
	scratch.Run(tb, "zfs", "create", "-o", "mountpoint="+path, outer.Source+"/"+name)
}

// lookAlike makes a snapshot of the user's where ours would be.
func lookAlike(tb testing.TB, v snapshottest.Volume, id string) func() string {
	name := v.Volume.Source + "@" + prefix + id
	if _, err := tool.Run(context.Background(), "zfs", "list", name); err == nil { // of a set that died
		testPool{t: tb}.retry("zfs", "destroy", name)
	}
	scratch.Run(tb, "zfs", "snapshot", name)
	// The set's record stays as long as something is in its place, and after that, for the
	// pool might come back: people are told to remove it then.
	tb.Cleanup(func() { _ = os.Remove(filepath.Join(recordDir, id+recordSuffix)) })
	show := func() string { return scratch.Run(tb, "zfs", "get", "-H", "-p", "guid,createtxg,userrefs", name) }
	was := show()
	return func() string {
		if is := show(); is != was {
			return "is\n" + is + "and was\n" + was
		}
		return ""
	}
}

func TestSuite(t *testing.T) {
	scratch.NeedRoot(t)
	snapshottest.Run(t, suiteHost())
}
