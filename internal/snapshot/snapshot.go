package snapshot

import (
	"context"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// A Provider makes snapshots of volumes. Its methods may be called from
// several goroutines.
type Provider interface {
	// Name is the word users choose it by: lower case, lasting.
	Name() string

	// About says in a few words for people how it takes snapshots.
	About() string

	// Check is nil when the provider can take v as the host is now, or a
	// problem that says what is missing here and now: no-provider when v is
	// none of its kind. It changes nothing.
	Check(ctx context.Context, v volume.Volume) error

	// Prepare does everything slow and captures nothing: writes made after
	// it returned are in the snapshots. The set's id is unique, at most 32
	// lower-case letters and digits. When Prepare fails, nothing is left.
	Prepare(ctx context.Context, id string, ts []Target) (Pending, error)

	// Leftovers finds, by the provider's own tag alone and on all volumes
	// of the host, snapshots that an earlier process made and did not
	// release. What a living process holds is not among them. What carries
	// the name but not the proof of being ours is reported as a problem
	// with the code leftover-foreign and never returned. Snapshots and an
	// error may come together.
	Leftovers(ctx context.Context) ([]Snapshot, error)
}

// A Target is one volume to be taken, and what of it is wanted.
type Target struct {
	Volume volume.Volume
	Paths  []string // selected paths, relative to the volume's root, "." for all; never empty
}

// A Pending set is ready to be captured.
type Pending interface {
	// Instants is the number of separate instants that Commit may need. More
	// than one means that the set cannot promise to be of one moment; it
	// may be all the same, which the times of its Parts then say.
	Instants() int

	// Suspends tells whether Hold suspends writes. Where it does, everything
	// that is committed between Hold and Resume, by this set or another one,
	// shows one instant together with this set.
	Suspends() bool

	// Hold suspends writes to all volumes of the set. It does nothing
	// where Commit is itself atomic, and where writes cannot be suspended.
	Hold(ctx context.Context) error

	// Commit captures all volumes, or none. It is short, and called at most
	// once. Snapshots come in the order of the targets.
	Commit(ctx context.Context) ([]Snapshot, error)

	// Resume ends Hold. It is called after every Hold, whatever that
	// returned, and may be called while Commit still runs.
	Resume(ctx context.Context) error

	// Abort undoes Prepare, and a Commit that failed or still runs. It does
	// nothing after a Commit that succeeded, may be called twice, and again
	// after it failed, with a context that outlives the job's.
	Abort(ctx context.Context) error
}

// A Snapshot is one volume as it was at one instant, readable as a directory.
type Snapshot interface {
	// ID is unique on this host and says which set it belongs to.
	ID() string

	// Volume is the volume of the target.
	Volume() volume.ID

	// Parts says what Root is made of, by path: the volume itself, if
	// anything of it is selected, then everything grafted below it. There
	// is at least one, but of a leftover none. Directories that only lead
	// to a part are no part: their attributes are not those of the volume.
	Parts() []Part

	// Gaps names what lies below the selected paths and was not captured.
	// There may be more of them until the last byte was read, where a
	// provider loses single files and not all.
	Gaps() []Gap

	// Root is a directory that shows the volume's root as it was,
	// read-only: at least all selected paths of the target and the
	// directories that lead there. It is a path that only this process can
	// be sure to reach ("/proc/PID/fd/N"); every process of root can use
	// it while this one lives. Where the snapshot cannot be shown, and for a
	// leftover, it is a path that does not exist.
	Root() string

	// Err is nil while the snapshot is good, as far as can be told quickly.
	// It is asked after the last byte was read and before the backup is
	// recorded; once not nil it stays so, and everything read is suspect.
	Err() error

	// Release deletes the snapshot and all that belongs to it. It may be
	// called twice, and again after it failed; a process that did not make
	// the snapshot gets it from Leftovers. It succeeds while files of the
	// snapshot are still open, if the kernel lets it.
	Release(ctx context.Context) error
}

// A Part is one piece of a snapshot that was captured by itself.
type Part struct {
	Path   string    // below Root, "." for Root itself
	Volume volume.ID // the volume that lives there
	Taken  time.Time // its instant; parts of one instant have equal times

	// Frozen says that writes were suspended at the instant, so that all
	// writes before it are in the snapshot, durable or not.
	Frozen bool

	// Held is for how long writers had to wait for it; zero where they had not.
	Held time.Duration
}

// A Gap is something below a selected path that a snapshot does not show.
type Gap struct {
	Path   string       // below Root
	Code   problem.Code // empty where a rule, and no failure, left it out
	Reason string       // for people
}
