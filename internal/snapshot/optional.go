package snapshot

import (
	"context"
	"time"

	"stillpoint/internal/volume"
)

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

// A CacheUser is a Snapshot that keeps the originals of what changes meanwhile
// in a file of limited size.
type CacheUser interface {
	Snapshot

	// Cache may be asked until the snapshot is released.
	Cache() Cache
}

// Cache says how full a cache file is. Nothing in it is given back: what is
// used is the high-water mark, too.
type Cache struct{ Used, Maximum int64 }
