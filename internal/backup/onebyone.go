package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiet"
	"stillpoint/internal/repository"
	"stillpoint/internal/volume"
)

// quiet is coordinator.Plan.Quiet for the volumes of a plan.
func (b *backing) quiet(p *plan) func(context.Context) error {
	if b.o.Quiet.For == 0 {
		return nil
	}
	var vs []volume.Volume
	for _, v := range p.volumes {
		if v.provider != nil {
			vs = append(vs, v.volume)
		}
	}
	return func(ctx context.Context) error {
		err := quiet.Wait(ctx, vs, quiet.Options{For: b.o.Quiet.For, Timeout: b.o.Quiet.Timeout})
		on := b.o.Quiet.Else == ElseContinue || b.o.Quiet.Else == ElseOneAtATime && b.o.OneAtATime
		if problem.Is(err, problem.NoQuietTime) && on {
			b.event(job.Event{Severity: job.Warning, Step: job.StepCapture, Code: problem.NoQuietTime, Text: "goes on without a quiet time: " + problem.Text(err)})
			return nil
		}
		return err
	}
}

// volumeByVolume tells whether a capture of all at once that failed is to be
// followed by one of each volume, and says so.
func (b *backing) volumeByVolume(err error) bool {
	if !problem.Is(err, problem.NoQuietTime) || b.o.Quiet.Else != ElseOneAtATime || len(b.plan.volumes) < 2 || b.o.OneInstant {
		return false
	}
	b.event(job.Event{Severity: job.Warning, Step: job.StepCapture, Code: problem.NoQuietTime, Text: "the volumes are taken one at a time: " + problem.Text(err)})
	b.o.OneAtATime = true
	return true
}

// A piece is what of one source lies on one volume: the source itself, or a
// mount below it. Other volumes' pieces that show in it are stored before and
// added.
type piece struct {
	source
	of    string   // the path of the source that it belongs to
	below []string // paths of the pieces that show in it, none of them in another one
}

// pieces takes the sources apart. Those further down come first.
func (p *plan) pieces() (all []*piece) {
	for _, s := range p.sources {
		own := []graft{{path: s.path, place: s.place}}
		for _, g := range s.grafts {
			if !g.empty && g.within == "" {
				own = append(own, g)
			}
		}
		for _, g := range own {
			all = append(all, s.piece(g))
		}
	}
	slices.SortStableFunc(all, func(a, b *piece) int {
		return cmp.Compare(strings.Count(strings.TrimRight(b.path, "/"), "/"), strings.Count(strings.TrimRight(a.path, "/"), "/"))
	})
	return all
}

// piece is what of s shows at g, with places that are left empty where other
// pieces show.
func (s *source) piece(g graft) *piece {
	p := &piece{source: source{path: g.path, place: g.place}, of: s.path}
	for _, in := range s.grafts {
		if in.path == g.path || !within(g.path, in.path) || hidden(p.grafts, g.path, in.path) {
			continue
		}
		if !in.empty && in.within == "" {
			in.empty = true
			p.below = append(p.below, in.path)
		}
		p.grafts = append(p.grafts, in)
	}
	return p
}

// turn chooses the volume that is taken next, and what of it is stored then: if
// there is one, a volume of which everything can be. What is left out counts as
// stored, and is nil.
func turn(left []*piece, stored map[string]*repository.Tree) (volume.ID, []*piece) {
	var first []*piece
	for _, p := range left {
		ready, all := 0, 0
		var mine []*piece
		for _, q := range left {
			if q.place.volume.ID != p.place.volume.ID {
				continue
			}
			all++
			if q.ready(p.place.volume.ID, left, stored) {
				ready++
				mine = append(mine, q)
			}
		}
		if ready == all {
			return p.place.volume.ID, mine
		}
		if first == nil && ready > 0 {
			first = mine
		}
	}
	return first[0].place.volume.ID, first
}

// ready tells whether all that shows in the piece is stored or left out, or will be
// with the same volume.
func (p *piece) ready(id volume.ID, left []*piece, stored map[string]*repository.Tree) bool {
	return !slices.ContainsFunc(p.below, func(path string) bool {
		if _, done := stored[path]; done {
			return false
		}
		at := slices.IndexFunc(left, func(q *piece) bool { return q.path == path })
		return at < 0 || left[at].place.volume.ID != id || !left[at].ready(id, left, stored)
	})
}

// oneByOne captures one volume at a time: take, store, release, next.
func (b *backing) oneByOne(ctx context.Context, rules *rules) error {
	b.rec = repository.Backup{ID: b.log.ID(), Started: b.log.Header().Started, Provider: b.plan.providers()}
	b.cap = &capture{}
	if err := b.storeAndRecord(ctx, rules, b.storeOneByOne); err != nil {
		return err
	}
	return b.logged()
}

func (b *backing) storeOneByOne(ctx context.Context, w *repository.Writer, rules *rules) (*checkpoints, error) {
	points := &checkpoints{last: map[string]*repository.Backup{}}
	_, files, bytes, err := b.lookBack(ctx)
	if err != nil {
		return points, err
	}
	if b.o.Expect != nil && files > 0 {
		b.o.Expect(files, bytes)
	}
	stored := map[string]*repository.Tree{}
	level, last := job.Application, time.Time{}
	for left := b.plan.pieces(); ; {
		left = slices.DeleteFunc(left, func(p *piece) bool {
			if rules.leavesOut(p.path) {
				stored[p.path] = nil
			}
			_, done := stored[p.path]
			return done
		})
		if len(left) == 0 {
			break
		}
		id, mine := turn(left, stored)
		l, at, err := b.storeVolume(ctx, w, rules, points, id, mine, stored)
		if err != nil {
			return points, err
		}
		level = worse(level, l)
		if at.After(last) {
			last = at
		}
	}
	for _, s := range b.plan.sources {
		if t := stored[s.path]; t != nil {
			b.rec.Trees = append(b.rec.Trees, *t)
		}
	}
	if err := b.something(); err != nil {
		return points, err
	}
	b.rec.Skew = last.Sub(b.rec.Instant)
	b.rec.Level = string(level)
	b.report.Level, b.report.Skew = level, job.Millis(b.rec.Skew)
	b.report.OneInstant = b.rec.Skew == 0 && level != job.Live
	if b.o.Application && !b.apps.AtRest() {
		return points, b.apps.Require()
	}
	return points, nil
}

var levels = []job.Level{job.Live, job.Crash, job.FileSystem, job.Application}

func worse(a, b job.Level) job.Level {
	return levels[min(slices.Index(levels, a), slices.Index(levels, b))]
}

// storeVolume captures one volume, stores its pieces and releases it.
func (b *backing) storeVolume(ctx context.Context, w *repository.Writer, rules *rules, points *checkpoints, id volume.ID, pieces []*piece, stored map[string]*repository.Tree) (level job.Level, instant time.Time, err error) {
	p := &plan{}
	at := slices.IndexFunc(b.plan.volumes, func(v planned) bool { return v.volume.ID == id })
	v := b.plan.volumes[at]
	v.paths = nil
	for _, piece := range pieces {
		v.paths = append(v.paths, piece.place.rel)
		p.sources = append(p.sources, piece.source)
	}
	p.volumes = []planned{v}
	apps := b.apps.On(string(id))
	c, err := b.capture(ctx, p, apps, false)
	if err != nil {
		return "", instant, err
	}
	b.cap = c
	why := "the backup failed"
	defer func() {
		b.cached()
		b.cap.release(ctx, b.run, p, why)
		b.cap = &capture{}
	}()
	fault.Point("backup:captured")
	if err := b.cap.read(ctx); err != nil {
		return "", instant, err
	}
	if err := b.leaveOut(rules); err != nil {
		return "", instant, err
	}
	if instant, _ = b.cap.span(); instant.IsZero() {
		instant = b.e.now()
	}
	b.at = instant
	if b.rec.Instant.IsZero() {
		b.rec.Instant = instant
	}
	level = b.level(p, apps)
	if len(b.apps.All) > 0 && apps.None() && level != job.Live {
		level = job.Application // no application has files here
	}
	b.rec.Level = string(level)
	b.report.Volumes = append(b.report.Volumes, b.volumeReport(v))
	b.hide(p, rules)
	err = b.cap.while(ctx, func(ctx context.Context) error { return b.storePieces(ctx, w, rules, points, pieces, stored) })
	if err != nil {
		return "", instant, err
	}
	if err := b.cap.ask(); err != nil {
		return "", instant, err
	}
	why = "no longer needed"
	return level, instant, nil
}

func (b *backing) storePieces(ctx context.Context, w *repository.Writer, rules *rules, points *checkpoints, pieces []*piece, stored map[string]*repository.Tree) error {
	for _, piece := range pieces {
		if rules.leavesOut(piece.path) {
			continue
		}
		t, err := b.storePiece(ctx, w, rules, points, piece, stored)
		if problem.Is(err, problem.FileOpen) {
			b.exception(job.StepStore, piece.path, err)
			stored[piece.path] = nil
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", piece.path, err)
		}
		stored[piece.path] = &t
	}
	return nil
}

func (b *backing) storePiece(ctx context.Context, w *repository.Writer, rules *rules, points *checkpoints, p *piece, stored map[string]*repository.Tree) (repository.Tree, error) {
	previous, err := b.before(ctx, p)
	if err != nil {
		return repository.Tree{}, err
	}
	o := b.storeOptions(w, points, p.source, previous)
	for _, path := range p.below {
		if stored[path] != nil { // else it is left out
			o.Added = append(o.Added, repository.Added{Path: path, Tree: stored[path]})
		}
	}
	// A note belongs to the piece that its directory is in.
	o.Added = slices.DeleteFunc(o.Added, func(a repository.Added) bool {
		return a.File != nil && slices.ContainsFunc(p.below, func(in string) bool { return within(in, a.Path) })
	})
	t, err := b.storeOne(ctx, w, &p.source, rules, o)
	if err == nil && o.Checkpoint != nil {
		err = o.Checkpoint(ctx, t)
	}
	return t, err
}

// before are earlier trees of a piece: its own, and what of those of its source
// lies at its path.
func (b *backing) before(ctx context.Context, p *piece) ([]repository.Tree, error) {
	all, err := b.repo.Previous(ctx, p.path)
	if err != nil || p.path == p.of {
		return all, err
	}
	whole, err := b.repo.Previous(ctx, p.of)
	if err != nil {
		return nil, err
	}
	for _, t := range whole {
		r, err := b.repo.Lookup(ctx, &t, p.path)
		if problem.Is(err, problem.NotInBackup) {
			continue
		}
		if err != nil {
			return nil, err
		}
		t.Path, t.Root = p.path, r
		all = append(all, t)
	}
	return all, nil
}
