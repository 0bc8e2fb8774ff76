package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/device"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// A target is one volume of a set, and once captured its snapshot.
type target struct {
	set    *set
	volume volume.Volume
	origin origin
	tag    tag
	root   *os.File // of the live volume, until its writes have been resumed

	store *store
	room  Room // of the store; nil where that is a cache file
	made  bool // the devices with our tag are of this set, and not of one that is called the same
	real  dm.Device
	snap  dm.Device

	lost atomic.Pointer[error] // why the snapshot is given up
	used atomic.Int64          // the most that the store held

	leaving turn        // held while it is taken away, which may take long
	chores  []*chore    // of that, which have not ended; guarded by leaving
	asked   atomic.Bool // to release it, and not only lost
	trying  atomic.Bool // to take it away, after that has failed
	going   atomic.Bool // that has begun
	over    atomic.Bool // the snapshot has ended, and keeps nothing any more
	bare    atomic.Bool // nothing of ours is laid below the origin any more, or ever was

	mu       sync.Mutex
	taken    time.Time
	held     time.Duration
	shown    *device.Shown
	spare    *store        // of the layer, where the journal was replayed
	quit     chan struct{} // ends the watch
	ended    chan struct{} // when it has
	released bool
}

// keep makes the store, which is a cache file or in a room. Our lock is held.
func (t *target) keep(place cachefile.Placement, i int) (err error) {
	if t.room != nil {
		err = t.store.makeRoomed(t.set.control, t.tag)
	} else {
		t.store, err = makeStore(t.set.control, t.tag.as(kindStore), place.Dir, place.Limits[i])
	}
	// It is also where it could not be taken away again.
	t.made = t.store != nil && t.store.device.Number != (dm.Number{})
	if err != nil {
		return err
	}
	fault.Point("dm:store-made")
	return nil
}

// lay lays our devices below the origin. All locks are held.
func (t *target) lay() (err error) {
	c := t.set.control
	if t.real, err = t.origin.lay(); err != nil {
		return err
	}
	fault.Point("dm:laid")
	sectors, err := t.sectors()
	if err != nil {
		return err
	}
	// Not persistent: after a power cut nobody can take it for anything.
	table := []dm.Target{{Length: sectors, Type: "snapshot", Params: fmt.Sprintf("%s %s N %d", t.real.Number, t.store.device.Number, t.store.chunk())}}
	if t.snap, err = loadDevice(c, t.tag.as(kindSnapshot), table, true); err != nil {
		return err
	}
	fault.Point("dm:snapshot-loaded")
	if err := t.origin.ask(t.real); err != nil {
		return err
	}
	fault.Point("dm:origin-asks")
	return nil
}

func (t *target) sectors() (uint64, error) {
	table, err := t.set.control.Table(t.real.Number)
	return dm.Sectors(table), err
}

// capture fixes the instant: from now on originals are kept. The volume is frozen,
// so nothing is under way that the kernel would not notice.
func (t *target) capture(instant time.Time) error {
	// By its UUID: somebody may have removed it, and its number be another device's.
	snap := t.set.control.Named(t.tag.as(kindSnapshot).uuid())
	if err := dm.Within(exchangePatience, func() error { return snap.Resume(dm.Alone) }); err != nil {
		return err
	}
	if t.room != nil {
		go t.tend()
	}
	t.mu.Lock()
	t.taken = instant
	t.mu.Unlock()
	return t.unchanged()
}

// unchanged is nil while the origin asks our device, and the snapshot is there.
func (t *target) unchanged() error {
	c := t.set.control
	is, err := c.Table(t.origin.number)
	if err != nil {
		return err
	}
	if !isOurs(is, t.real.Number) {
		return fmt.Errorf("another program has changed the device that the volume lies on (%s), as lvextend does, so what is written goes past the snapshot", t.origin.number)
	}
	if _, err := c.StatusOf(t.tag.as(kindSnapshot).uuid()); errors.Is(err, dm.ErrNone) {
		return errors.New("another program has removed the snapshot")
	} else if err != nil {
		return err
	}
	return nil
}

// failed gives an error of the target the code of a failed snapshot, unless it
// has one.
func (t *target) failed(step string, err error) error {
	err = fmt.Errorf("%s %s: %w", step, t.Volume(), err)
	if problem.CodeOf(err) != problem.Uncatalogued {
		return err
	}
	return problem.New(problem.SnapshotFailed, string(t.Volume()), err)
}

// ID is the set's and the volume's.
func (t *target) ID() string { return t.set.id + "/" + string(t.Volume()) }

// Volume is the target's.
func (t *target) Volume() volume.ID { return t.volume.ID }

// Parts is the volume alone. Where its journal had to be replayed, it is what would be
// there after a power cut.
func (t *target) Parts() []snapshot.Part {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.show()
	return []snapshot.Part{{Path: ".", Volume: t.volume.ID, Taken: t.taken, Frozen: t.spare == nil, Held: t.held}}
}

// Gaps are none: a device shows all or nothing.
func (t *target) Gaps() []snapshot.Gap { return nil }

// Root shows the snapshot, from the first time that it is asked for.
func (t *target) Root() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.show() {
		return nowhere
	}
	return t.shown.Root()
}

// show shows the snapshot when it is first needed, and tells whether it is shown. It
// is called with mu held.
func (t *target) show() bool {
	if t.going.Load() || t.lost.Load() != nil {
		return false
	}
	if t.shown != nil {
		return true
	}
	src := device.Source{
		Device: device.Device{Node: t.snap.Node(), Number: t.snap.Number.String()}, FSType: t.volume.FSType,
		Frozen: !slices.ContainsFunc(t.volume.Options, isUnreplayed),
	}
	if t.room == nil { // or there is no place for what the replay of a journal writes
		src.Layer = t.layer
	}
	var err error
	t.shown, err = device.Show(context.Background(), src)
	if err != nil {
		t.lose(fmt.Errorf("show it: %w", err))
		return false
	}
	fault.Point("dm:shown")
	return true
}

// isUnreplayed tells whether an option says that a file system was mounted as it was
// found, with what its journal holds not in its place: ext4 and XFS are then read-only,
// and a freeze of them writes nothing.
func isUnreplayed(option string) bool { return option == "norecovery" || option == "noload" }

// nowhere is a path that does not exist.
const nowhere = "/proc/self/fd/none"

// Err is nil as long as all that was to be kept could be.
func (t *target) Err() error {
	if t.isReleased() {
		return problem.Newf(problem.SnapshotLost, t.ID(), "it was released")
	}
	if t.lost.Load() == nil {
		t.look()
	}
	if err := t.lost.Load(); err != nil {
		return *err
	}
	if t.going.Load() {
		return problem.Newf(problem.SnapshotLost, t.ID(), "it is being released")
	}
	return nil
}

func (t *target) isReleased() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.released
}

// lose gives the snapshot up, and says when.
func (t *target) lose(err error) {
	err = problem.New(problem.SnapshotLost, t.ID(), fmt.Errorf("lost at %s: %w", time.Now().Format(time.RFC3339), err))
	t.lost.CompareAndSwap(nil, &err)
}

// Cache says where the cache file is and how full.
func (t *target) Cache() (snapshot.Cache, bool) {
	if t.lost.Load() == nil {
		t.look()
	}
	return snapshot.Cache{Dir: t.store.dir, Used: t.used.Load(), Maximum: t.store.limits.Maximum}, true
}

var (
	_ snapshot.Snapshot  = (*target)(nil)
	_ snapshot.CacheUser = (*target)(nil)
)
