package snapshot

import (
	"context"
	"log/slog"
	"time"

	"stillpoint/internal/volume"
)

// Ask looks for more that a snapshot can do than the contract demands: the first
// T among it and what it wraps.
func Ask[T Snapshot](s Snapshot) (found T, ok bool) {
	for s != nil {
		if found, ok = s.(T); ok {
			return found, true
		}
		w, wraps := s.(interface{ Unwrap() Snapshot })
		if !wraps {
			break
		}
		s = w.Unwrap()
	}
	return found, false
}

// A Readier is a Pending whose Hold takes less time when what is slow about it
// was done shortly before: applications rest while Hold is at work.
type Readier interface {
	Pending

	// Ready may be called between Prepare and Hold, any number of times, and
	// captures nothing. Hold does not rely on it.
	Ready(ctx context.Context) error
}

// A Watcher is a Provider that gains by watching a volume between snapshots,
// in a process that stays. Its snapshots are as good without, but cost more, or
// cannot be had where too much is in use that it knows nothing of. Its methods
// may be called from several goroutines.
type Watcher interface {
	Provider

	// Watch begins to watch a volume, until Unwatch or the end of the process.
	// It does nothing for one that is watched. It fails with the codes of
	// Check. While a volume is watched it stays in use, also after it was
	// unmounted.
	Watch(ctx context.Context, v volume.Volume) error

	// Unwatch ends that. Snapshots of the volume stay good.
	Unwatch(id volume.ID) error

	// Watched says how each volume is that is watched, or has a snapshot.
	Watched() []Watched

	// Unseen finds what can change files of a volume without being noticed:
	// what of it is selected a Prepare has to take care of. It may take some
	// seconds on a busy host.
	Unseen(ctx context.Context, v volume.Volume) ([]Unseen, error)
}

// Watched is what a Watcher tells of a volume.
type Watched struct {
	Volume volume.ID
	Kept   bool  // Watch was called, and not only a snapshot needs it
	Armed  bool  // there is a snapshot: accesses wait until originals are saved
	Events int64 // accesses that have waited since the watch began

	Since     time.Time // what was opened then or later is noticed
	Inherited bool      // the watch was taken over from an earlier process
}

// Unseen is one process, or one part of the kernel, and what it may change.
type Unseen struct {
	PID     int // 0 for the kernel
	Program string
	Kind    string // a word: "descriptor", "mapping" …
	Files   int
	Paths   []string // of some of them, as the program sees them
	Advice  string   // who does what, and what to do about it
}

// A Yielder is a Snapshot that may be given up before it is released, because the live
// system needs what it keeps. That can be given back only when nothing of it is open
// any more.
type Yielder interface {
	Snapshot

	// Yielded is closed when the snapshot is given up; Err says why. Whoever reads
	// it then ends at once, and closes what he has open of it.
	Yielded() <-chan struct{}
}

// A CacheUser is a Snapshot that may keep the originals of what changes
// meanwhile in a file of limited size.
type CacheUser interface {
	Snapshot

	// Cache is false where there is no such file. It may be asked until the
	// snapshot is released.
	Cache() (Cache, bool)
}

// Cache says where a cache file is and how full. Nothing in it is given back:
// what is used is the high-water mark, too.
type Cache struct {
	Dir     string
	Used    int64
	Maximum int64
}

// CacheOf asks a snapshot; nil where it has no cache file.
func CacheOf(s Snapshot) *Cache {
	if u, ok := s.(CacheUser); ok {
		if c, ok := u.Cache(); ok {
			return &c
		}
	}
	return nil
}

// A CacheChoice is where people want cache files, and how large. The zero value
// leaves it to the provider.
type CacheChoice struct {
	Dir     string // an absolute path
	Maximum string // as package cachefile reads it
}

// A CacheChooser is a Provider that has cache files.
type CacheChooser interface {
	Provider

	// WithCache is the same provider with another choice. It shares with the
	// first one what that watches and holds. A choice that cannot be read
	// fails with the code usage.
	WithCache(CacheChoice) (Provider, error)

	// CachePlaces says where the cache file for a volume would go, and what of
	// the other volumes: in the order of preference. Nothing is changed.
	CachePlaces(ctx context.Context, v volume.Volume) ([]CachePlace, error)
}

// A CachePlace is one place for a cache file.
type CachePlace struct {
	Dir     string
	Volume  volume.ID
	Chosen  bool
	Maximum int64  // where it is chosen
	Reason  string // for or against it
}

// A Joiner is a Provider that can take each of some volumes and yet, maybe, not all
// of them in one set: the cache file of each may need another one of them.
type Joiner interface {
	Provider

	// Together is nil when one set can hold all of the volumes, each of which
	// Check lets pass. It changes nothing.
	Together(ctx context.Context, vs []volume.Volume) error
}

// A Neighbour is a Joiner to which it matters what other providers take in the same
// set.
type Neighbour interface {
	Joiner

	// Beside is Together where others take other volumes besides. With the code
	// cache-nowhere it could take its own, but better does not.
	Beside(ctx context.Context, vs, others []volume.Volume) error
}

// A Looker is a Provider whose Check does something to the volume, be it for a
// moment only, and who can do without.
type Looker interface {
	Provider

	// Look is Check by looking alone: the volume is not touched, so there may be
	// reasons against it that only Check finds.
	Look(ctx context.Context, v volume.Volume) error
}

// An OnRequest is a Provider that takes some volumes only where people name it: its Check
// refuses these with no-provider, and its Prepare takes them.
type OnRequest interface {
	Provider

	// Named is Check where people have named it. For what Check refuses, how says what
	// it would do.
	Named(ctx context.Context, v volume.Volume) (how string, err error)
}

// A Teller is a Provider to which things happen while nobody asks it, in a process
// that stays.
type Teller interface {
	Provider

	// Tell gives it the log of the process.
	Tell(log *slog.Logger)
}
