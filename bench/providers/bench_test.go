//go:build bench

// Package providers_test measures the providers for device-mapper, LVM and btrfs
// side by side in one virtual machine, and prints a Markdown table:
//
//	make bench-providers
//
// bench/README.md says what is measured and how.
package providers_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/btrfs"
	"stillpoint/internal/snapshot/dm"
	"stillpoint/internal/snapshot/lvm"
	"stillpoint/internal/volume"
)

func TestMain(m *testing.M) {
	guard.Main(dm.Duty(), lvm.Duty())
	os.Exit(m.Run())
}

// The disks of the machine that package inside starts.
const disks = "/dev/disk/by-id/virtio-scratch"

// A side is one way to keep originals: a script that makes its volume on the disk
// $disk and mounts it at $dir, and how it is taken.
type side struct {
	name   string
	script string
	take   func(t *testing.T, dir string) taken
}

// A taken is a snapshot that can be read.
type taken struct {
	held    time.Duration // writes were suspended; 0 where nobody says
	release func(t *testing.T)
}

// All but the last lie on logical volumes with ext4; the disks are alike.
var sides = []side{
	{"provider dm: device-mapper with a cache file", thick + mounted, by(func() snapshot.Provider { return dm.New(host) })},
	{"lvcreate --snapshot with the free extents of the volume group", thick + mounted, byExtents},
	{"provider lvm: thin pool", `vgcreate -qq $vg $disk; lvcreate -qqy -L 3G -T $vg/pool; lvcreate -qqy -V 1200M -n data --thinpool pool $vg;` + mounted, by(func() snapshot.Provider { return lvm.New(host) })},
	{"provider btrfs", `mkfs.btrfs -q -f $disk; mount -o noatime $disk $dir`, by(func() snapshot.Provider { return btrfs.New(host) })},
}

const (
	thick   = `vgcreate -qq $vg $disk; lvcreate -qqy -L 1200M -n data $vg;`
	mounted = `mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/$vg/data; mount -o noatime /dev/$vg/data $dir`
)

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// A column is what was measured of one side, once a round.
type column struct {
	without, with []float64       // writes a second
	ready, hold   []time.Duration // until the snapshot can be read; writes suspended
}

// TestBench takes turns between the sides, so that what the host does meanwhile
// concerns all alike.
func TestBench(t *testing.T) {
	rounds := number(t, "ROUNDS", "3")
	dirs := make([]string, len(sides))
	columns := make([]column, len(sides))
	for i, s := range sides {
		dirs[i] = s.make(t, i)
	}
	for range rounds {
		for i, s := range sides {
			columns[i].measure(t, s, dirs[i])
		}
	}
	fmt.Print("\n| | random 8 KiB writes with a snapshot held, as a share of without | until it can be read | writes suspended |\n|---|---:|---:|---:|\n")
	for i, s := range sides {
		c := &columns[i]
		var shares []float64
		for k := range c.with {
			shares = append(shares, c.with[k]/c.without[k])
		}
		fmt.Printf("| %s | %.2f (%.0f of %.0f a second) | %.0f ms | %s |\n", s.name, median(shares), median(c.with), median(c.without),
			milliseconds(median(c.ready)), suspended(median(c.hold)))
	}
}

func number(t *testing.T, name, otherwise string) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("STILLPOINT_TEST_BENCH_"+name), otherwise))
	if err != nil || n < 1 {
		t.Fatalf("STILLPOINT_TEST_BENCH_%s is to be a number from 1 on: %v", name, err)
	}
	return n
}

func median[T float64 | time.Duration](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

func suspended(d time.Duration) string {
	if d == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%.0f ms", milliseconds(d))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// make makes the i-th volume, with a file that is written all of once.
func (s side) make(t *testing.T, i int) (dir string) {
	t.Helper()
	disk, err := filepath.EvalSymlinks(disks + strconv.Itoa(i))
	if err != nil {
		t.Fatalf("this runs in a machine with %d disks (make bench-providers): %v", len(sides), err)
	}
	dir, vg := t.TempDir(), fmt.Sprintf("bench%d", i)
	run(t, "sh", "-ec", "disk="+disk+" dir="+dir+" vg="+vg+"\n"+s.script)
	t.Cleanup(func() {
		run(t, "umount", dir)
		if strings.Contains(s.script, "vgcreate") {
			run(t, "vgremove", "-qqy", vg)
		}
	})
	run(t, "dd", "if=/dev/urandom", "of="+dir+"/file", "bs=1M", "count="+strconv.Itoa(fileMB), "conv=fsync", "status=none")
	return dir
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	c := exec.Command(name, args...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, out, &said)
	}
	return out
}

const (
	fileMB  = 200
	lasting = "8" // seconds of each measurement
)

// measure measures one round: without a snapshot, and with one.
func (c *column) measure(t *testing.T, s side, dir string) {
	t.Helper()
	c.without = append(c.without, fio(t, dir))
	began := time.Now()
	snap := s.take(t, dir)
	c.ready, c.hold = append(c.ready, time.Since(began)), append(c.hold, snap.held)
	c.with = append(c.with, fio(t, dir))
	snap.release(t)
	t.Logf("%s: %.0f and %.0f writes a second, ready after %v, writes suspended for %v", s.name, c.without[len(c.without)-1], c.with[len(c.with)-1], c.ready[len(c.ready)-1], snap.held)
}

// by takes a snapshot as a backup does.
func by(provider func() snapshot.Provider) func(*testing.T, string) taken {
	return func(t *testing.T, dir string) taken {
		t.Helper()
		table, err := host(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v, _, _, err := table.Find(dir)
		if err != nil {
			t.Fatal(err)
		}
		p := provider()
		snap, held := take(t, p, snapshot.Target{Volume: v, Paths: []string{"."}})
		if _, err := os.Stat(filepath.Join(snap.Root(), "file")); err != nil {
			t.Fatalf("%s: %v, %v", p.Name(), err, snap.Err())
		}
		return taken{held, func(t *testing.T) {
			if err := snap.Err(); err != nil {
				t.Errorf("%s: the snapshot: %v", p.Name(), err)
			}
			if err := snap.Release(context.Background()); err != nil {
				t.Errorf("%s: release: %v", p.Name(), err)
			}
		}}
	}
}

var sets int

func take(t *testing.T, p snapshot.Provider, target snapshot.Target) (snap snapshot.Snapshot, held time.Duration) {
	t.Helper()
	ctx := t.Context()
	sets++
	pending, err := p.Prepare(ctx, "bench"+strconv.Itoa(sets), []snapshot.Target{target})
	if err != nil {
		t.Fatalf("%s: %v", p.Name(), err)
	}
	err = pending.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(ctx)
	}
	if resumed := pending.Resume(context.Background()); err == nil {
		err = resumed
	}
	if err != nil {
		_ = pending.Abort(context.Background())
		t.Fatalf("%s: %v", p.Name(), err)
	}
	return snaps[0], snaps[0].Parts()[0].Held
}

// byExtents is LVM's own, for comparison, mounted like one of ours.
func byExtents(t *testing.T, dir string) taken {
	t.Helper()
	of, view := strings.TrimSpace(string(run(t, "findmnt", "--noheadings", "--output=SOURCE", dir))), t.TempDir()
	vg := strings.TrimSpace(string(run(t, "lvs", "--noheadings", "--options=vg_name", of)))
	run(t, "lvcreate", "-qqy", "--snapshot", "--size=1G", "--name=copy", of)
	run(t, "mount", "-o", "ro,noload", "/dev/"+vg+"/copy", view)
	return taken{0, func(t *testing.T) {
		run(t, "umount", view)
		run(t, "lvremove", "-qqy", vg+"/copy")
	}}
}

// fio returns how many writes of 8 KiB a second reach random places of the file.
func fio(t *testing.T, dir string) float64 {
	t.Helper()
	run(t, "sync", "--file-system", dir)
	out := run(t, "fio", "--name=job", "--filename="+dir+"/file", "--size="+strconv.Itoa(fileMB)+"M", "--ioengine=psync", "--rw=randwrite", "--bs=8k",
		"--direct=1", "--norandommap", "--randrepeat=0", "--time_based", "--runtime="+lasting, "--output-format=json")
	var said struct {
		Jobs []struct{ Write struct{ IOPS float64 } }
	}
	if err := json.Unmarshal(out, &said); err != nil || len(said.Jobs) != 1 {
		t.Fatalf("fio said %s: %v", out, err)
	}
	return said.Jobs[0].Write.IOPS
}
