package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/sys/zfs"
	"stillpoint/internal/volume"
)

// A set is the snapshots of one Prepare, from there to the last Release.
type set struct {
	id      string
	p       *Provider
	device  *zfs.Device
	pools   map[string]pool
	members map[string]*member // by dataset
	targets []*target
	missing map[*target][]missing
	record  *record
	space   *mount.Space

	busy    chan struct{} // held by the call that changes the set
	state   state
	aborted atomic.Bool   // Abort was called
	window  atomic.Bool   // between Hold and Resume
	asked   bool          // the kernel was, for the snapshots
	trying  atomic.Bool   // Abort has failed, and goes on
	quit    chan struct{} // closed when there is nothing more to watch
	tries   int           // to end what was given up
	next    time.Time     // of them

	rows   map[string][]string // of snapshots, as they were lately
	rowsAt time.Time

	settled sync.Mutex // what follows, and when members were taken, belongs to settle
	held    bool

	asking sync.Mutex    // what follows; only views in the making wait for it
	after  *volume.Table // what was mounted later, once asked
}

// state is how far a set has come.
type state int

const (
	prepared state = iota
	taken
	failed
	over // nothing is left
)

// A member is a dataset that is taken once, for however many targets.
type member struct {
	dataset  string
	required bool
	guid     uint64 // of the dataset
	users    int    // targets that still need it

	taken     time.Time
	gap       *snapshot.Gap // why there is no snapshot
	lost      error         // why the snapshot is not good
	stats     zfs.Stats     // of the snapshot, when it was new
	mount     mounting
	destroyed bool
}

// name is the snapshot's.
func (m *member) name(set string) string { return m.dataset + "@" + prefix + set }

// A target is one of the set's, planned.
type target struct {
	set    *set
	index  int
	target snapshot.Target
	paths  []string
	places []place

	yielded chan struct{} // closed when it is given up

	mu       sync.Mutex
	shown    bool
	view     view  // once shown
	err      error // once not nil, for ever
	unneeded bool  // its datasets were told that it needs them no more
	released bool

	trying atomic.Bool // Release has failed, and goes on
}

// Prepare plans the set, records it, and writes what is dirty to disk.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validID(id) || len(ts) == 0 {
		return nil, fmt.Errorf("set %q of %d targets: not a set", id, len(ts))
	}
	s := &set{
		id: id, p: p, pools: map[string]pool{}, members: map[string]*member{}, missing: map[*target][]missing{},
		busy: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	if err := s.prepare(ctx, ts); err != nil {
		err = errors.Join(err, s.undo(context.WithoutCancel(ctx), busyLimit))
		s.close() // what could not be undone is a leftover now
		return nil, err
	}
	return s, nil
}

func (s *set) prepare(ctx context.Context, ts []snapshot.Target) error {
	for _, t := range ts {
		if err := ours(t.Volume); err != nil {
			return err
		}
	}
	table, err := s.p.host(ctx)
	if err != nil {
		return fmt.Errorf("look for datasets: %w", err)
	}
	if s.device, err = open(); err != nil {
		return err
	}
	for _, t := range ts {
		if err := s.add(ctx, table, t); err != nil {
			return err
		}
	}
	for _, m := range s.sorted() {
		if err := s.look(ctx, m); err != nil {
			return err
		}
	}
	if s.space, err = newSpace(); err != nil {
		return err
	}
	if s.record, err = createRecord(s.p.dir, s.id, s.intents()); err != nil {
		return err
	}
	fault.Point("zfs:intent-recorded")
	if err := s.Ready(ctx); err != nil {
		return err
	}
	return ctx.Err()
}

// add plans a target.
func (s *set) add(ctx context.Context, table *volume.Table, ts snapshot.Target) error {
	t := &target{set: s, index: len(s.targets), target: ts, yielded: make(chan struct{})}
	var err error
	if t.paths, err = clean(ts); err != nil {
		return err
	}
	pool, err := s.pool(ctx, poolOf(ts.Volume.Source))
	if err != nil {
		return err
	}
	t.places = places(table, ts.Volume, t.paths)
	s.missing[t] = unmounted(table, pool.datasets, ts.Volume, t.paths, t.places)
	s.targets = append(s.targets, t)
	for _, pl := range t.places {
		m := s.members[pl.dataset]
		if m == nil {
			m = &member{dataset: pl.dataset}
			s.members[pl.dataset] = m
		}
		m.required = m.required || leads(t.paths, pl.at)
	}
	for _, name := range t.datasets() {
		s.members[name].users++
	}
	return nil
}

// datasets are those of the places, each once.
func (t *target) datasets() []string {
	var all []string
	for _, pl := range t.places {
		all = append(all, pl.dataset)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// look asks a dataset who it is.
func (s *set) look(ctx context.Context, m *member) error {
	if n := len(m.name(s.id)); n > zfs.MaxName {
		return m.settle(problem.Newf(problem.SnapshotFailed, m.dataset, "the name of its snapshot would be %d bytes long, of which ZFS allows %d", n, zfs.MaxName))
	}
	st, err := s.p.stats(ctx, s.device, m.dataset)
	m.guid = st.GUID
	return m.settle(err)
}

// settle decides what it means that m cannot be taken: of one that nobody selected by
// itself it is a gap, unless it tells of trouble with the whole pool.
func (m *member) settle(err error) error {
	err = coded("zfs:"+m.dataset, err)
	if err == nil || m.required || problem.CodeOf(err) == problem.ZFSStuck ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	m.gap = &snapshot.Gap{Code: problem.CodeOf(err), Reason: err.Error()}
	return nil
}

// sorted lists the members by name.
func (s *set) sorted() []*member {
	var ms []*member
	for _, m := range s.members {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(a, b *member) int { return strings.Compare(a.dataset, b.dataset) })
	return ms
}

// on lists the members of a pool that can be taken. Of those of another pool it reads
// nothing that changes: each pool is taken by a goroutine of its own.
func (s *set) on(pool string) []*member {
	return slices.DeleteFunc(s.sorted(), func(m *member) bool { return poolOf(m.dataset) != pool || m.gap != nil })
}

func (s *set) intents() []intent {
	var all []intent
	for name, pool := range s.pools {
		for _, m := range s.on(name) {
			all = append(all, intent{Pool: pool.guid, Dataset: m.dataset, GUID: m.guid})
		}
	}
	return all
}

// Ready writes what is dirty now to disk, so that Commit need not.
func (s *set) Ready(ctx context.Context) error {
	for name := range s.pools {
		if err := s.p.zfs.do(ctx, callLimit, "sync of "+name, func() error { return s.device.Sync(name) }); err != nil {
			return coded(name, err)
		}
	}
	return nil
}

var _ snapshot.Readier = (*set)(nil)
