//go:build bench

package cow_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/volume"
)

// A rig is a volume with a provider, in one round of one part.
type rig struct {
	*testing.T
	options
	*results
	fs       string
	dir      string
	volume   volume.Volume
	provider *cow.Provider
	round    int
	sets     int
}

// cacheRoom is enough for all that is changed, and four times the largest file,
// so that files may be saved whole.
const cacheRoom = 4 << 30

func newRig(t *testing.T, found *results, o options, fs string, size int64) *rig {
	var many []scratch.Option
	if fs == "ext4" {
		many = append(many, scratch.Format("-i", "4096")) // an inode for each block: enough for small files
	}
	v := scratch.New(t, fs, size, many...)
	on, _ := scratch.Find(t, v.Dir)
	return &rig{
		T: t, options: o, results: found, fs: fs, dir: v.Dir, volume: on,
		provider: cow.New(host, cow.Options{Cache: cachefile.Rules{Maximum: cachefile.Bytes(cacheRoom)}}),
	}
}

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// eachRound calls run once for each round.
func (r *rig) eachRound(run func()) {
	for r.round = range r.rounds {
		run()
	}
}

// inTurn calls all, in the opposite order every second round.
func (r *rig) inTurn(all ...func()) {
	for i := range all {
		if r.round%2 == 1 {
			i = len(all) - 1 - i
		}
		all[i]()
	}
}

// watched does something while a filter is on the volume.
func (r *rig) watched(do func()) {
	r.Helper()
	r.must(r.provider.Watch(context.Background(), r.volume))
	defer func() { r.must(r.provider.Unwatch(r.volume.ID)) }()
	do()
}

// events is how many there have been since the filter was started.
func (r *rig) events() (n int64) {
	for _, w := range r.provider.Watched() {
		n += w.Events
	}
	return n
}

// prepare prepares a snapshot of a directory.
func (r *rig) prepare(path string) snapshot.Pending {
	r.Helper()
	r.sets++
	target := snapshot.Target{Volume: r.volume, Paths: []string{path}}
	pending, err := r.provider.Prepare(context.Background(), "bench"+strconv.Itoa(r.sets), []snapshot.Target{target})
	r.must(err)
	return pending
}

// held takes what was prepared, does something while there is the snapshot, and
// releases it.
func (r *rig) held(pending snapshot.Pending, do func(s snapshot.Snapshot)) {
	r.Helper()
	ctx := context.Background()
	err := pending.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(ctx)
	}
	resumed := pending.Resume(ctx)
	if err != nil {
		_ = pending.Abort(ctx)
	}
	r.must(err)
	s := snaps[0]
	defer func() { r.must(s.Release(ctx)) }()
	r.must(resumed)
	do(s)
	r.must(s.Err())
}

// cached is how many bytes a snapshot has saved.
func cached(s snapshot.Snapshot) int64 { return s.(interface{ Cached() int64 }).Cached() }

// file makes a file of random bytes that is on the disk and in memory.
func (r *rig) file(name string, size int) string {
	r.Helper()
	r.must(os.WriteFile(r.path(name), randomBytes(size), 0o644))
	r.sync()
	return r.path(name)
}

// randomBytes are the same in each run.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// sync writes what is dirty of the volume.
func (r *rig) sync() {
	r.Helper()
	f, err := os.Open(r.dir)
	r.must(err)
	defer f.Close()
	r.must(unix.Syncfs(int(f.Fd())))
}
