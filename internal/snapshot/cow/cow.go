package cow

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
	"stillpoint/internal/volume"
)

// Name is the provider's.
const Name = "cow"

// Options say how a Provider works. The zero value will do.
type Options struct {
	Cache cachefile.Rules // where cache files go, and how large they may be; they may always lie on the volume itself
	Hot   int64           // bytes of hot files that may be copied under the freeze; 0 stands for 64 MiB
	Quiet time.Duration   // how long is waited until few files change; 0 stands for 30 s

	// Keep is how many files of a volume can be deleted before they are read
	// and still be there. Each takes 1.7 KiB of the kernel's memory; 0 stands
	// for as many as fit into a tenth of what there is.
	Keep int64

	through func(shield.Cache) shield.Cache // for tests: what originals go through on their way to the cache file

	few  int                // for tests: how many that are
	cold func(hot.Use) bool // for tests: what is not to be taken for hot
}

// A Provider takes snapshots of ext4 and XFS volumes.
type Provider struct {
	host func(context.Context) (*volume.Table, error)
	o    Options

	mu      sync.Mutex
	filters map[volume.ID]*filter
	kept    map[volume.ID]bool // volumes whose filter Watch keeps
	sets    map[string]bool    // ids of those that there are
	caches  map[*cache]bool
	crowds  crowds

	legacy legacy
}

// New makes a Provider that asks host what is mounted, each time it needs to
// know.
func New(host func(context.Context) (*volume.Table, error), o Options) *Provider {
	if o.Hot == 0 {
		o.Hot = 64 << 20
	}
	if o.Quiet == 0 {
		o.Quiet = 30 * time.Second
	}
	if o.Keep == 0 {
		o.Keep = keepMost()
	}
	if o.few == 0 {
		o.few = few
	}
	o.Cache.SameVolume = true
	p := &Provider{host: host, o: o, filters: map[volume.ID]*filter{}, kept: map[volume.ID]bool{}, sets: map[string]bool{}, caches: map[*cache]bool{}}
	p.legacy.guards = map[*guard.Guard]bool{}
	p.count()
	return p
}

// keepMost is how many inodes fit into a tenth of the memory.
func keepMost() int64 {
	const each = 1700 // bytes of slab, measured on ext4 and XFS
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 100_000
	}
	return int64(info.Totalram) * int64(info.Unit) / 10 / each
}

// Name is "cow".
func (p *Provider) Name() string { return Name }

// About says what these snapshots are.
func (p *Provider) About() string {
	return "copy-on-write: the original of what changes goes to a cache file, on another volume if there is one"
}

// FileSystems are those that this provider takes. btrfs would do, too, and has
// snapshots of its own.
var FileSystems = []string{"ext4", "xfs"}

// Check is nil when a snapshot of v can be made as the host is now.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error {
	return p.check(ctx, v, p.o.Cache, "")
}

func (p *Provider) check(ctx context.Context, v volume.Volume, r cachefile.Rules, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := open(v)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := fanotify.AbleOn(root); err != nil {
		return problem.New(problem.NoProvider, string(v.ID), err)
	}
	if err := timesOf(v, root); err != nil {
		return err
	}
	_, _, err = p.place(ctx, []volume.Volume{v}, r, dir)
	return err
}

// timesOf refuses a volume whose times are too coarse.
func timesOf(v volume.Volume, root *os.File) error {
	if a, err := inode.Stat(int(root.Fd())); err != nil || v.FSType == "ext4" && a.Born == 0 {
		return errors.Join(err, problem.Newf(problem.NoProvider, string(v.ID),
			"its inodes have 128 bytes and so times of whole seconds, by which a change could not be noticed"))
	}
	return nil
}

// open opens the root of a volume, at any place where all of it shows.
func open(v volume.Volume) (*os.File, error) {
	if v.Kind != volume.Local || !slices.Contains(FileSystems, v.FSType) {
		return nil, problem.Newf(problem.NoProvider, string(v.ID), "%s takes ext4 and XFS, this is %s", Name, v.FSType)
	}
	for _, m := range v.Mounts {
		if m.Hidden || m.Deleted || m.Root != "/" {
			continue
		}
		f, err := os.Open(m.Point)
		if err != nil {
			return nil, problem.New(problem.VolumeLost, m.Point, err)
		}
		return f, nil
	}
	return nil, problem.Newf(problem.NoProvider, string(v.ID), "only parts of the volume are mounted: mount all of it somewhere")
}

// claim takes an id for a set.
func (p *Provider) claim(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sets[id] {
		return problem.Newf(problem.Busy, id, "there is a set with this id")
	}
	p.sets[id] = true
	return nil
}

// unclaim is for a set that is gone.
func (p *Provider) unclaim(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sets, id)
}

// acquire returns the filter of a volume, which is started for the first one
// who needs it.
func (p *Provider) acquire(v volume.Volume) (*filter, error) {
	f, first, err := p.share(v)
	if first {
		p.legacy.keep(f.estate(f.unwatched()))
	}
	return f, err
}

func (p *Provider) share(v volume.Volume) (f *filter, first bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f = p.filters[v.ID]
	if f == nil {
		root, err := open(v)
		if err != nil {
			return nil, false, err
		}
		defer root.Close()
		if f, err = startFilter(root); err != nil {
			return nil, false, err
		}
		if err := p.silence(f); err != nil {
			return nil, false, errors.Join(err, f.stop())
		}
		p.filters[v.ID] = f
		p.count()
		first = true
	}
	f.users++
	return f, first, nil
}

// giveBack stops the filter with its last user.
func (p *Provider) giveBack(id volume.ID, f *filter) error {
	if !p.last(id, f) {
		return nil
	}
	p.legacy.forget(f.unwatched()) // before: who waits goes on only when nobody has the group
	return f.stop()                // others do not wait for that
}

// last takes one user away, and with the last one the filter.
func (p *Provider) last(id volume.ID, f *filter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.users--; f.users > 0 {
		return false
	}
	delete(p.filters, id)
	p.count()
	return true
}

// Leftovers is empty: everything ends with the process.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	return nil, ctx.Err()
}

var _ snapshot.Provider = (*Provider)(nil)
