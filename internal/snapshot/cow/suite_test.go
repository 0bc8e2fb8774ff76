package cow

import (
	"context"
	"os"
	"testing"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

func TestMain(m *testing.M) {
	guard.Main()
	holder.Main()
	os.Exit(m.Run())
}

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// suiteHost takes volumes of a file system of its own on a loop device each.
func suiteHost(fs string) snapshottest.Host {
	return snapshottest.Host{
		New: func(testing.TB) snapshot.Provider { return New(host, Options{}) },
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			var vs []snapshottest.Volume
			for range n {
				v := scratch.New(tb, fs, 400*scratch.MiB)
				found, _ := scratch.Find(tb, v.Dir)
				vs = append(vs, snapshottest.Volume{Dir: v.Dir, Volume: found})
			}
			return vs
		},
		Ephemeral: true,
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "other", Kind: volume.Local, FSType: "vfat", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
	}
}

func TestSuiteExt4(t *testing.T) { testSuite(t, "ext4") }
func TestSuiteXFS(t *testing.T)  { testSuite(t, "xfs") }

func testSuite(t *testing.T, fs string) {
	scratch.NeedRoot(t)
	snapshottest.Run(t, suiteHost(fs))
}
