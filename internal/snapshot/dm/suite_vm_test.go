//go:build vm

package dm

import (
	"context"
	"os"
	"strings"
	"testing"

	"stillpoint/internal/fault"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

func TestSuitePlainExt4(t *testing.T)   { snapshottest.Run(t, suiteHost(plain, "ext4")) }
func TestSuitePlainXFS(t *testing.T)    { snapshottest.Run(t, suiteHost(plain, "xfs")) }
func TestSuiteLinearExt4(t *testing.T)  { snapshottest.Run(t, suiteHost(linear, "ext4")) }
func TestSuiteLinearXFS(t *testing.T)   { snapshottest.Run(t, suiteHost(linear, "xfs")) }
func TestSuiteStripedExt4(t *testing.T) { snapshottest.Run(t, suiteHost(striped, "ext4")) }
func TestSuiteStripedXFS(t *testing.T)  { snapshottest.Run(t, suiteHost(striped, "xfs")) }
func TestSuiteLUKSExt4(t *testing.T)    { snapshottest.Run(t, suiteHost(luks, "ext4")) }
func TestSuiteLUKSXFS(t *testing.T)     { snapshottest.Run(t, suiteHost(luks, "xfs")) }
func TestSuiteThinExt4(t *testing.T)    { snapshottest.Run(t, suiteHost(thin, "ext4")) }

// suiteHost takes volumes on devices of a kind.
func suiteHost(k kind, fs string) snapshottest.Host {
	return snapshottest.Host{
		New: func(tb testing.TB) snapshot.Provider {
			// Named, because originals of an encrypted volume go to none that is not,
			// unless somebody says so.
			p, err := New(host).WithCache(snapshot.CacheChoice{Dir: os.TempDir()})
			if err != nil {
				tb.Fatal(err)
			}
			return p
		},
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			return volumes(tb, k, fs, n, 400)
		},
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "other", Kind: volume.Local, FSType: "ext4", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
		State:     describe,
		LookAlike: lookAlike,
		Points:    fault.DM,
		Guarded:   true,
	}
}

// lookAlike makes a device that is called as ours are.
func lookAlike(tb testing.TB, v snapshottest.Volume, id string) func() string {
	c := control(tb)
	d, err := c.Create(namePrefix+id+"-7-"+kindSnapshot, "STILLPOINT-1-"+kindSnapshot+"-of-somebody-else-"+id)
	if err == nil {
		err = c.Load(d.Number, []dm.Target{{Length: 8, Type: "zero"}}, false)
	}
	if err == nil {
		err = c.Resume(d.Number, 0)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := removeDevice(c, d); err != nil {
			tb.Error(err)
		}
	})
	was, err := c.Table(d.Number)
	if err != nil {
		tb.Fatal(err)
	}
	return func() string {
		is, err := c.Table(d.Number)
		if err != nil {
			return err.Error()
		}
		if len(is) != 1 || is[0] != was[0] {
			return "it has another table"
		}
		return ""
	}
}

func runQuietly(name string, args ...string) (string, error) {
	out, err := tool.Run(context.Background(), name, args...)
	if err != nil {
		return strings.TrimSpace(string(out) + " " + err.Error()), err
	}
	return "", nil
}
