package btrfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"stillpoint/internal/fault"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// suiteHost takes subvolumes of one btrfs, each mounted by itself. The top
// level is mounted at mount0 beside them.
func suiteHost(options ...scratch.Option) snapshottest.Host {
	h := snapshottest.Host{
		New: func(testing.TB) snapshot.Provider { return New(host) },
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			v := scratch.New(tb, "btrfs", scratch.GiB, options...)
			var vs []snapshottest.Volume
			for i := range n {
				name := fmt.Sprint("volume", i)
				scratch.Run(tb, "btrfs", "subvolume", "create", v.Dir+"/"+name)
				dir := v.Mount(tb, "subvol="+name)
				found, _ := scratch.Find(tb, dir)
				vs = append(vs, snapshottest.Volume{Dir: dir, Volume: found})
			}
			return vs
		},
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "other", Kind: volume.Local, FSType: "ext4", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
		State:     func(tb testing.TB, vs []snapshottest.Volume) string { return describeHost(tb, topOf(vs[0])) },
		LookAlike: lookAlike,
		Known:     map[string]string{"prefix-not-durable": "the kernel writes what is in memory before the transaction, not in it"},
	}
	for _, p := range fault.Points {
		if strings.HasPrefix(p, "btrfs:") {
			h.Points = append(h.Points, p)
		}
	}
	return h
}

// topOf is where the top level is mounted.
func topOf(v snapshottest.Volume) string { return filepath.Join(filepath.Dir(v.Dir), "mount0") }

// describeHost lists all subvolumes, and everything in our folder.
func describeHost(tb testing.TB, top string) string {
	list := scratch.Run(tb, "btrfs", "subvolume", "list", "-pquR", top)
	list = regexp.MustCompile(`gen \d+ `).ReplaceAllString(list, "") // a snapshot's source is written, too
	names, _ := filepath.Glob(top + "/.*")
	more, _ := filepath.Glob(top + "/.stillpoint/*")
	return list + strings.Join(names, "\n") + strings.Join(more, "\n")
}

// lookAlike puts a read-only snapshot of the user's where ours would be.
func lookAlike(tb testing.TB, v snapshottest.Volume, id string) func() string {
	folder := filepath.Join(topOf(v), folderName)
	place := filepath.Join(folder, id, strconv.FormatUint(v.Volume.Subvolume.ID, 10))
	snap := filepath.Join(place, snapshotName)
	record := filepath.Join(folder, id+recordSuffix)
	if err := os.MkdirAll(place, 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(snap); err == nil { // of a set that died
		scratch.Run(tb, "btrfs", "subvolume", "delete", snap)
	} else if err := os.WriteFile(record, []byte(`{"stillpoint":1,"set":"`+id+`"}`+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	scratch.Run(tb, "btrfs", "subvolume", "snapshot", "-r", v.Dir, snap)
	was := scratch.Run(tb, "btrfs", "subvolume", "show", snap)
	return func() string {
		if is := scratch.Run(tb, "btrfs", "subvolume", "show", snap); is != was {
			return "is\n" + is + "and was\n" + was
		}
		return ""
	}
}

func TestSuite(t *testing.T) {
	scratch.NeedRoot(t)
	snapshottest.Run(t, suiteHost())
}
