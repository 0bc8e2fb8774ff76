package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/mount"
)

// A set is the snapshots of one Prepare, from there to the last Release.
type set struct {
	id          string
	filesystems map[btrfs.UUID]*filesystem
	members     map[subvolume]*member
	targets     []*target
	space       *mount.Space
	threads     *threads

	busy    chan struct{} // held by the call that changes the set
	state   state
	aborted atomic.Bool // Abort was called
}

// state is how far a set has come.
type state int

const (
	prepared state = iota
	taken
	failed
	over // nothing is left
)

// A member is a subvolume that is taken once, for however many targets.
type member struct {
	subvolume
	fs       *filesystem
	required bool
	uuid     btrfs.UUID
	source   *os.File // the subvolume
	place    *os.File // the directory in which its snapshot is made
	users    int      // targets that still need it

	root *os.File        // of the snapshot
	snap btrfs.Subvolume // what it said about itself when it was new
	at   instant
	gap  *snapshot.Gap // why there is none
}

// A target is one of the set's, planned.
type target struct {
	set     *set
	index   int
	target  snapshot.Target
	id      uint64 // of its subvolume
	paths   []string
	places  []place
	members []*member // those of the places

	mu       sync.Mutex
	shown    bool
	view     view  // once shown
	err      error // once not nil, for ever
	released bool
}

// Prepare plans the set, records it, makes the directories for its snapshots
// and writes what is dirty to disk.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validID(id) || len(ts) == 0 {
		return nil, fmt.Errorf("set %q of %d targets: not a set", id, len(ts))
	}
	s := &set{
		id: id, filesystems: map[btrfs.UUID]*filesystem{}, members: map[subvolume]*member{},
		threads: &p.threads, busy: make(chan struct{}, 1),
	}
	if err := s.prepare(ctx, p, ts); err != nil {
		err = errors.Join(err, s.undo(context.WithoutCancel(ctx)))
		s.close() // what could not be undone is a leftover now
		return nil, err
	}
	return s, nil
}

func (s *set) prepare(ctx context.Context, p *Provider, ts []snapshot.Target) error {
	swaps, err := p.swaps(ctx)
	if err != nil {
		return err
	}
	for _, t := range ts {
		if err := s.add(t, swaps); err != nil {
			return err
		}
	}
	for _, m := range s.members {
		if err := m.openSource(); err != nil {
			return err
		}
	}
	if s.space, err = newSpace(); err != nil {
		return err
	}
	for _, f := range s.filesystems {
		if err := s.attach(f); err != nil {
			return err
		}
		if err := s.record(ctx, f); err != nil {
			return err
		}
		if err := s.makePlaces(f); err != nil {
			return err
		}
		// What is dirty now need not be written within Commit. It also
		// puts all that is on record on disk.
		if err := file.SyncFS(fd(f.top)); err != nil {
			return coded(f.uuid.String(), err)
		}
	}
	return ctx.Err()
}

// add plans a target.
func (s *set) add(ts snapshot.Target, swaps map[subvolume]string) error {
	f, err := s.filesystem(ts)
	if err != nil {
		return err
	}
	t := &target{set: s, index: len(s.targets), target: ts, id: ts.Volume.Subvolume.ID}
	if t.paths, err = clean(ts); err != nil {
		return err
	}
	n := f.tree.nodes[t.id]
	if n == nil {
		return problem.Newf(problem.VolumeLost, string(ts.Volume.ID), "its subvolume was deleted")
	}
	t.places = n.plan(t.paths)
	s.targets = append(s.targets, t)
	for _, pl := range t.places {
		m := s.member(f, pl)
		if file, busy := swaps[m.subvolume]; busy {
			err := swapProblem(ts.Volume, file)
			if m.required {
				return err
			}
			m.gap = &snapshot.Gap{Code: problem.SwapActive, Reason: err.Error()}
		}
		m.users++
		t.members = append(t.members, m)
	}
	return nil
}

func (s *set) filesystem(t snapshot.Target) (*filesystem, error) {
	f, err := open(t.Volume)
	if err != nil {
		return nil, err
	}
	if known := s.filesystems[f.uuid]; known != nil {
		f.close()
		return known, nil
	}
	s.filesystems[f.uuid] = f
	if err := f.writable(); err != nil {
		return nil, err
	}
	if f.tree, err = readTree(f.top); err != nil {
		return nil, coded(string(t.Volume.ID), fmt.Errorf("list subvolumes: %w", err))
	}
	return f, nil
}

func (s *set) member(f *filesystem, pl place) *member {
	key := subvolume{f.uuid, pl.ID}
	m := s.members[key]
	if m == nil {
		m = &member{subvolume: key, fs: f}
		s.members[key] = m
	}
	m.required = m.required || pl.required
	return m
}

// openSource opens the subvolume of m.
func (m *member) openSource() error {
	source, err := m.fs.tree.nodes[m.id].open(m.fs.top)
	if err != nil {
		return m.settle(err)
	}
	s, err := btrfs.Ask(source)
	if err == nil && s.ID != m.id {
		err = problem.Newf(problem.VolumeLost, string(m.volume()), "another subvolume is there by now")
	}
	m.source, m.uuid = source, s.UUID
	return m.settle(err)
}

// settle decides what it means that m could not be taken: that of a nested
// subvolume is a gap, unless it tells of trouble with the whole file system.
func (m *member) settle(err error) error {
	err = coded(string(m.volume()), err)
	switch {
	case err == nil, m.required,
		errors.Is(err, syscall.EIO), errors.Is(err, syscall.EROFS),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	m.gap = &snapshot.Gap{Code: problem.CodeOf(err), Reason: err.Error()}
	return nil
}

// attach puts the file system into the set's private mounts.
func (s *set) attach(f *filesystem) error {
	at, err := s.directory(f.uuid.String())
	if err != nil {
		return err
	}
	defer at.Close()
	return coded(f.uuid.String(), s.space.Attach(f.mount, at))
}

// directory makes a directory in the set's private mounts.
func (s *set) directory(name string) (*os.File, error) {
	if err := file.MakeDirectory(fd(s.space.Root()), name); err != nil {
		return nil, coded("mount namespace", err)
	}
	f, err := mount.OpenBelow(s.space.Root(), name)
	return f, coded("mount namespace", err)
}

// on lists the members on a file system that can be taken, by id.
func (s *set) on(f *filesystem) []*member {
	var ms []*member
	for _, m := range s.members {
		if m.fs == f && m.gap == nil {
			ms = append(ms, m)
		}
	}
	slices.SortFunc(ms, func(a, b *member) int { return int(a.id) - int(b.id) })
	return ms
}

// record writes down what is going to be made on f.
func (s *set) record(ctx context.Context, f *filesystem) error {
	now, err := btrfs.Describe(f.top)
	if err != nil {
		return coded(f.uuid.String(), err)
	}
	var intents []intent
	for _, m := range s.on(f) {
		intents = append(intents, intent{ID: m.id, UUID: m.uuid, Generation: now.Generation})
	}
	dir, lock, err := makeFolder(ctx, f.top)
	if err != nil {
		return err
	}
	defer lock.Close()
	f.folder = dir
	if f.record, err = createRecord(dir, s.id, f.uuid, intents); err != nil {
		return err
	}
	fault.Point("btrfs:intent-recorded")
	return nil
}

// makePlaces makes a directory for each snapshot: the kernel locks the
// directory in which it makes one until that is done.
func (s *set) makePlaces(f *filesystem) error {
	if err := file.MakeDirectory(fd(f.folder.dir), s.id); err != nil {
		return coded(folderName+"/"+s.id, err)
	}
	dir, err := mount.OpenBelow(f.folder.dir, s.id)
	if err != nil {
		return coded(folderName+"/"+s.id, err)
	}
	defer dir.Close()
	inodes := map[uint64]uint64{}
	for _, m := range s.on(f) {
		name := strconv.FormatUint(m.id, 10)
		if err := file.MakeDirectory(fd(dir), name); err != nil {
			return coded(folderName+"/"+s.id, err)
		}
		if m.place, err = mount.OpenBelow(dir, name); err != nil {
			return coded(folderName+"/"+s.id, err)
		}
		st, err := file.Stat(fd(m.place), "", file.Itself)
		if err != nil {
			return coded(folderName+"/"+s.id, err)
		}
		inodes[m.id] = st.Inode
	}
	fault.Point("btrfs:places-made")
	return f.record.placed(inodes)
}
