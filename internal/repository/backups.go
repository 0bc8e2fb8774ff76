package repository

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// A Backup is one run of a job: trees of one host that belong together.
type Backup struct {
	ID         string    // of the job
	Host       string    //
	User       string    //
	Started    time.Time //
	Ended      time.Time //
	Instant    time.Time // the earliest moment shown
	Skew       time.Duration
	Provider   string // of the snapshots: "btrfs", "none"; several joined by "+"
	Level      string // application, filesystem, crash, live
	Status     string // of the job, as it is recorded
	Exceptions int    // files that are not as they were
	Files      int64  // regular files
	Bytes      int64  // content of all trees
	Stored     int64  // new in the repository
	Trees      []Tree // by path
	Lost       int    // paths whose record is gone: kopia deletes them one by one

	order     int64 // grows with every backup of the repository, whatever the clock does; 0 if another program made it
	manifests []manifest.ID
}

// Incomplete tells whether this is only a checkpoint of a run that ended early.
func (b *Backup) Incomplete() bool {
	return slices.ContainsFunc(b.Trees, func(t Tree) bool { return t.Incomplete })
}

// Paths are the live paths of the backup.
func (b *Backup) Paths() []string {
	out := make([]string, len(b.Trees))
	for i, t := range b.Trees {
		out[i] = t.Path
	}
	return out
}

// The tags of our manifests. kopia keeps user tags under "tag:".
const (
	tagPrefix     = "tag:stillpoint-"
	tagJob        = tagPrefix + "job"
	tagOrder      = tagPrefix + "order"
	tagOf         = tagPrefix + "of" // number of paths of the backup
	tagRoot       = tagPrefix + "root"
	tagInstant    = tagPrefix + "instant" // of this path
	tagFirst      = tagPrefix + "first"   // earliest instant of the backup
	tagSkew       = tagPrefix + "skew"
	tagProvider   = tagPrefix + "provider"
	tagLevel      = tagPrefix + "level"
	tagStatus     = tagPrefix + "status"
	tagExceptions = tagPrefix + "exceptions"
	tagStored     = tagPrefix + "stored"
)

// Record makes the backup exist: all its trees or none, on disk when it
// returns. Checkpoints of the same job are removed, and those of the same paths
// that were there when the writer began; later ones are of a run that goes on
// at the same time. Two backups that are recorded at the same moment may get
// the same place in the order, and are then ordered by their start.
func (w *Writer) Record(ctx context.Context, b *Backup) error {
	// What the manifests lead to is on disk before they are.
	if err := w.flush(ctx); err != nil {
		return err
	}
	all, err := w.r.load(ctx, true)
	if err != nil {
		return err
	}
	b.order = next(all)
	w.recording = true
	if err := w.put(ctx, b); err != nil {
		return err
	}
	for _, o := range w.passed {
		if slices.Contains(b.Paths(), o.Trees[0].Path) {
			if err := w.forget(ctx, &o); err != nil {
				return err
			}
		}
	}
	for _, o := range all {
		if o.ID == b.ID && w.r.isCheckpoint(&o) {
			if err := w.forget(ctx, &o); err != nil {
				return err
			}
		}
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	fault.Point("repository:recorded")
	return nil
}

// Checkpoint records what there is so far of one tree, in the place of the
// last checkpoint of the same run, so that a next run goes on from there.
func (w *Writer) Checkpoint(ctx context.Context, b Backup, t Tree, last *Backup) (*Backup, error) {
	b.Trees = []Tree{t}
	b.Trees[0].Incomplete = true
	if last != nil {
		b.order = last.order
	} else {
		all, err := w.r.load(ctx, true)
		if err != nil {
			return nil, err
		}
		b.order = next(all)
	}
	if err := w.flush(ctx); err != nil {
		return last, err
	}
	if err := w.put(ctx, &b); err != nil {
		return last, err
	}
	if last != nil {
		if err := w.forget(ctx, last); err != nil {
			return last, err
		}
	}
	if err := w.flush(ctx); err != nil {
		return last, err
	}
	fault.Point("repository:checkpoint-saved")
	return &b, nil
}

// next is the place in the order of what is recorded now.
func next(all []Backup) int64 {
	n := int64(1)
	for _, b := range all {
		n = max(n, b.order+1)
	}
	return n
}

// Forget removes a checkpoint.
func (w *Writer) Forget(ctx context.Context, b *Backup) error {
	if err := w.forget(ctx, b); err != nil {
		return err
	}
	return w.flush(ctx)
}

func (w *Writer) forget(ctx context.Context, b *Backup) error {
	for _, id := range b.manifests {
		m, err := w.kopia.GetManifest(ctx, id, nil)
		if errors.Is(err, manifest.ErrNotFound) {
			continue
		}
		if err == nil {
			err = w.r.clock.after(m.ModTime, func() error { return w.kopia.DeleteManifest(ctx, id) })
		}
		if err != nil {
			return understand(w.r.path, err)
		}
	}
	return nil
}

func (w *Writer) put(ctx context.Context, b *Backup) error {
	b.Host, b.User = w.r.id.Host, w.r.id.User
	b.manifests = nil
	for _, t := range b.Trees {
		m, err := b.manifest(&t)
		if err != nil {
			return err
		}
		id, err := snapshot.SaveSnapshot(ctx, w.kopia, m)
		if err != nil {
			return understand(w.r.path, err)
		}
		b.manifests = append(b.manifests, id)
	}
	return nil
}

func (b *Backup) manifest(t *Tree) (*snapshot.Manifest, error) {
	root, err := encodeRoot(&t.Root)
	if err != nil {
		return nil, err
	}
	oid, err := object.ParseID(t.Root.Object)
	if err != nil {
		return nil, err
	}
	m := &snapshot.Manifest{
		Source:    snapshot.SourceInfo{Host: b.Host, UserName: b.User, Path: tree.StoredName(t.Path)},
		StartTime: kopiafs.UTCTimestamp(b.Started.UnixNano()),
		EndTime:   kopiafs.UTCTimestamp(b.Ended.UnixNano()),
		RootEntry: &snapshot.DirEntry{
			Name:        t.Root.stored,
			Type:        snapshot.EntryType(t.Root.kopiaType()),
			Permissions: snapshot.Permissions(modeForKopia(t.Root.Mode)),
			FileSize:    t.Root.Size,
			ModTime:     kopiafs.UTCTimestamp(t.Root.mtime().UnixNano()),
			UserID:      t.Root.UID,
			GroupID:     t.Root.GID,
			ObjectID:    oid,
			DirSummary:  t.Root.Summary,
		},
		Tags: map[string]string{
			tagJob:        b.ID,
			tagOrder:      strconv.FormatInt(b.order, 10),
			tagOf:         strconv.Itoa(len(b.Trees)),
			tagRoot:       root,
			tagInstant:    stamp(t.Instant),
			tagFirst:      stamp(b.Instant),
			tagSkew:       b.Skew.String(),
			tagProvider:   b.Provider,
			tagLevel:      b.Level,
			tagStatus:     b.Status,
			tagExceptions: strconv.Itoa(b.Exceptions),
			tagStored:     strconv.FormatInt(b.Stored, 10),
		},
	}
	if t.Incomplete {
		m.IncompleteReason = "checkpoint"
	}
	if s := t.Root.Summary; s != nil {
		m.Stats = snapshot.Stats{
			TotalFileSize:       s.TotalFileSize,
			TotalFileCount:      int32(s.TotalFileCount),
			TotalDirectoryCount: int32(s.TotalDirCount),
			IgnoredErrorCount:   int32(s.IgnoredErrorCount),
		}
	}
	return m, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// Backups returns the complete backups, newest first: in the order in which
// they were recorded, whatever the clock said.
func (r *Repository) Backups(ctx context.Context) ([]Backup, error) {
	return r.load(ctx, false)
}

// Recorded is when the last record of a backup was written, by the clock of who
// wrote it; zero where there is none. No record is loaded for it.
func (r *Repository) Recorded(ctx context.Context) (last time.Time, err error) {
	es, err := r.kopia.FindManifests(ctx, snapshots)
	if err != nil {
		return last, understand(r.path, err)
	}
	for _, e := range es {
		if e.ModTime.After(last) {
			last = e.ModTime
		}
	}
	return last, nil
}

// snapshots are the labels of all records of backups.
var snapshots = map[string]string{manifest.TypeLabelKey: snapshot.ManifestType}

// load also returns checkpoints where asked to.
func (r *Repository) load(ctx context.Context, incomplete bool) ([]Backup, error) {
	if err := r.kopia.Refresh(ctx); err != nil {
		return nil, understand(r.path, err)
	}
	es, err := r.kopia.FindManifests(ctx, snapshots)
	if err != nil {
		return nil, understand(r.path, err)
	}
	ids := make([]manifest.ID, len(es))
	for i, e := range es {
		ids[i] = e.ID
	}
	ms, err := snapshot.LoadSnapshots(ctx, r.kopia, ids)
	if err != nil {
		return nil, understand(r.path, err)
	}
	// kopia leaves out, with no more than a log line, what it cannot load.
	if len(ms) != len(ids) {
		return nil, problem.Newf(problem.RepositoryDamaged, r.path, "%d of %d backup records cannot be read", len(ids)-len(ms), len(ids))
	}
	return group(ms, incomplete)
}

// isCheckpoint tells whether b is a checkpoint of this identity.
func (r *Repository) isCheckpoint(b *Backup) bool {
	return b.order > 0 && b.Incomplete() && b.Host == r.id.Host && b.User == r.id.User
}

func (r *Repository) checkpoints(ctx context.Context) ([]Backup, error) {
	all, err := r.load(ctx, true)
	return slices.DeleteFunc(all, func(b Backup) bool { return !r.isCheckpoint(&b) }), err
}

// Previous returns the earlier trees of a path of this identity that may hold
// unchanged files: the checkpoints of runs that did not end since the last
// backup, then that backup's.
func (r *Repository) Previous(ctx context.Context, path string) ([]Tree, error) {
	all, err := r.load(ctx, true)
	if err != nil {
		return nil, err
	}
	var out []Tree
	var last *Backup
	for i, b := range all {
		if b.order == 0 || b.Incomplete() || b.Host != r.id.Host || b.User != r.id.User {
			continue
		}
		if j := slices.IndexFunc(b.Trees, func(t Tree) bool { return t.Path == path }); j >= 0 {
			last = &all[i]
			out = append(out, b.Trees[j])
			break
		}
	}
	for _, b := range all {
		if r.isCheckpoint(&b) && b.Trees[0].Path == path && (last == nil || b.order >= last.order) {
			out = append([]Tree{b.Trees[0]}, out...)
		}
	}
	return out, nil
}
