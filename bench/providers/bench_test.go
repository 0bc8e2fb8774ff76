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

// volumes are scripts: each makes one on the disk $disk, and mounts it at $dir. The
// disks are alike.
var volumes = []string{
	classic: `vgcreate -qq $vg $disk; lvcreate -qqy -L 1200M -n data $vg;` + mounted,
	thin:    `vgcreate -qq $vg $disk; lvcreate -qqy -L 3G -T $vg/pool; lvcreate -qqy -V 1200M -n data --thinpool pool $vg;` + mounted,
	onBtrfs: `mkfs.btrfs -q -f $disk; mount -o noatime $disk $dir`,
}

const (
	classic = iota // a linear volume of LVM with ext4
	thin
	onBtrfs

	mounted = `mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/$vg/data; mount -o noatime /dev/$vg/data $dir`
)

// A side is one way to keep the originals of a volume.
type side struct {
	name   string
	volume int
	take   func(t *testing.T, dir string) taken
}

// A taken is a snapshot that can be read.
type taken struct {
	held    time.Duration // writes were suspended; 0 where nobody says
	release func(t *testing.T)
}

var sides = []side{
	{"provider dm: device-mapper with a cache file", classic, by(func() snapshot.Provider { return dm.New(host) })},
	{"provider lvm, named: a room of free extents", classic, by(func() snapshot.Provider { return lvm.New(host) })},
	{"lvcreate --snapshot with free extents", classic, byExtents},
	{"provider lvm: thin pool", thin, by(func() snapshot.Provider { return lvm.New(host) })},
	{"provider btrfs", onBtrfs, by(func() snapshot.Provider { return btrfs.New(host) })},
}

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// A column is what was measured of one side, once a round.
type column struct {
	without, with []float64       // writes a second
	ready, hold   []time.Duration // until the snapshot can be read; writes suspended
	calm, wait    []time.Duration // the longest wait of a writer: without, and while it is taken
}

// TestBench takes turns between the sides, so that what the host does meanwhile
// concerns all alike.
func TestBench(t *testing.T) {
	rounds := number(t, "ROUNDS", "3")
	dirs := make([]string, len(volumes))
	columns := make([]column, len(sides))
	for i, script := range volumes {
		dirs[i] = makeVolume(t, i, script)
	}
	for range rounds {
		for i, s := range sides {
			columns[i].measure(t, s, dirs[s.volume])
		}
	}
	fmt.Print("\n| | random 8 KiB writes with a snapshot held, as a share of without | until it can be read | writes suspended | longest wait of a writer meanwhile (without) |\n|---|---:|---:|---:|---:|\n")
	for i, s := range sides {
		c := &columns[i]
		var shares []float64
		for k := range c.with {
			shares = append(shares, c.with[k]/c.without[k])
		}
		fmt.Printf("| %s | %.2f, %.2f to %.2f (%.0f of %.0f a second) | %.0f ms | %s | %.0f ms (%.0f) |\n", s.name,
			median(shares), slices.Min(shares), slices.Max(shares), median(c.with), median(c.without),
			milliseconds(median(c.ready)), suspended(median(c.hold)), milliseconds(median(c.wait)), milliseconds(median(c.calm)))
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
		return "nobody says"
	}
	return fmt.Sprintf("%.0f ms", milliseconds(d))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// makeVolume makes the i-th volume, with a file that is written all of once.
func makeVolume(t *testing.T, i int, script string) (dir string) {
	t.Helper()
	disk, err := filepath.EvalSymlinks(disks + strconv.Itoa(i))
	if err != nil {
		t.Fatalf("this runs in a machine with %d disks (make bench-providers): %v", len(volumes), err)
	}
	dir, vg := t.TempDir(), fmt.Sprintf("bench%d", i)
	run(t, "sh", "-ec", "disk="+disk+" dir="+dir+" vg="+vg+"\n"+script)
	t.Cleanup(func() {
		run(t, "umount", dir)
		if strings.Contains(script, "vgcreate") {
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

// measure measures one round: without a snapshot, while it is taken, and with it.
func (c *column) measure(t *testing.T, s side, dir string) {
	t.Helper()
	c.without = append(c.without, fio(t, dir))
	c.calm = append(c.calm, waited(t, dir, func() { time.Sleep(time.Second) }))
	var snap taken
	c.wait = append(c.wait, waited(t, dir, func() {
		began := time.Now()
		snap = s.take(t, dir)
		c.ready, c.hold = append(c.ready, time.Since(began)), append(c.hold, snap.held)
	}))
	c.with = append(c.with, fio(t, dir))
	snap.release(t)
	k := len(c.with) - 1
	t.Logf("%s: %.0f and %.0f writes a second, ready after %v, writes suspended for %v, waits of %v and %v", s.name, c.without[k], c.with[k], c.ready[k], snap.held, c.calm[k], c.wait[k])
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
	return written(t, run(t, "fio", "--name=job", "--filename="+dir+"/file", "--size="+strconv.Itoa(fileMB)+"M", "--rw=randwrite", "--bs=8k", "--direct=1",
		"--norandommap", "--randrepeat=0", "--ioengine=psync", "--time_based", "--runtime="+lasting, "--output-format=json")).IOPS
}

// waited returns the longest wait of a program that writes 4 KiB each other millisecond,
// as most programs do, through the page cache, while something is done.
func waited(t *testing.T, dir string, something func()) time.Duration {
	t.Helper()
	run(t, "sync", "--file-system", dir)
	c := exec.Command("fio", "--name=job", "--filename="+dir+"/waits", "--size=4M", "--rw=write", "--bs=4k", "--rate_iops=500",
		"--ioengine=psync", "--time_based", "--runtime=6", "--output-format=json")
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // it writes by now
	began := time.Now()
	something()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v, and the writer may have ended before", took)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	return time.Duration(written(t, said.Bytes()).Latency.Max)
}

// A job is what fio says of one.
type job struct {
	IOPS    float64
	Latency struct{ Max float64 } `json:"lat_ns"`
}

func written(t *testing.T, said []byte) job {
	t.Helper()
	var all struct{ Jobs []struct{ Write job } }
	if err := json.Unmarshal(said, &all); err != nil || len(all.Jobs) != 1 {
		t.Fatalf("fio said %s: %v", said, err)
	}
	return all.Jobs[0].Write
}
