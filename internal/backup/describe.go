package backup

import (
	"slices"
	"strings"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// describe fills in what is known once the snapshots are taken.
func (b *backing) describe() {
	now := b.e.now()
	first, _ := b.cap.span()
	skew := b.cap.taken.Skew
	if first.IsZero() {
		first = now
	}
	b.rec = repository.Backup{ID: b.log.ID(), Started: b.log.Header().Started, Instant: first, Skew: skew, Level: string(b.level(b.plan, b.apps))}
	b.at = first
	live := slices.ContainsFunc(b.plan.volumes, func(v planned) bool { return v.provider == nil })
	b.report.Level, b.report.Skew = job.Level(b.rec.Level), job.Millis(skew)
	b.report.OneInstant = b.cap.taken.OneInstant && !live
	for _, v := range b.plan.volumes {
		b.report.Volumes = append(b.report.Volumes, b.volumeReport(v))
	}
	b.rec.Provider = b.plan.providers()
}

// providers are the names of those that a plan uses.
func (p *plan) providers() string {
	var names []string
	for _, v := range p.volumes {
		if name := v.name(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// name is that of the provider.
func (v planned) name() string {
	if v.provider == nil {
		return None
	}
	return v.provider.Name()
}

// level is what the backup promises: never better than its worst volume. Where
// all applications that were found were at rest, they can go on from it; else a
// snapshot is as good as a disk after the programs were ended all at once, or as
// one after a power cut.
func (b *backing) level(p *plan, apps *quiesce.Applications) job.Level {
	level := job.FileSystem
	for _, v := range p.volumes {
		s := b.cap.snaps[v.volume.ID]
		if s == nil {
			return job.Live
		}
		for _, p := range s.Parts() {
			if !p.Frozen {
				level = job.Crash
			}
		}
	}
	if apps.AtRest() {
		return job.Application
	}
	return level
}

// because is why a file could not be read, as the snapshot knows it: what it
// lost is an error like any other to who reads.
func (b *backing) because(path string, err error) error {
	for id, s := range b.cap.snaps {
		for _, g := range s.Gaps() {
			if g.Code != "" && slices.Contains(b.plan.shown(id, g.Path), path) {
				return problem.Newf(g.Code, "", "%s", g.Reason)
			}
		}
	}
	return err
}

func (b *backing) volumeReport(v planned) job.VolumeReport {
	vr := job.VolumeReport{ID: string(v.volume.ID), Provider: v.name()}
	for _, m := range v.volume.Mounts {
		if !m.Hidden {
			vr.Mounts = append(vr.Mounts, m.Point)
		}
	}
	for _, s := range b.plan.sources {
		if s.place.volume.ID == v.volume.ID {
			vr.Paths = append(vr.Paths, s.path)
		}
		for _, g := range s.grafts {
			if !g.empty && g.place.volume.ID == v.volume.ID {
				vr.Paths = append(vr.Paths, g.path)
			}
		}
	}
	if s := b.cap.snaps[v.volume.ID]; s != nil {
		one := capture{snaps: map[volume.ID]snapshot.Snapshot{v.volume.ID: s}}
		first, skew := one.span()
		vr.Instant, vr.Skew, vr.OneInstant = first, job.Millis(skew), skew == 0
		for _, p := range s.Parts() {
			b.parts[v.volume.ID] = append(b.parts[v.volume.ID], p.Volume)
			vr.Hold = max(vr.Hold, job.Millis(p.Held))
		}
	}
	return vr
}

// hide finds what of the volumes is not for the backup: our own folders, and the
// gaps of snapshots, which are named here once and then left out.
func (b *backing) hide(p *plan, rules *rules) {
	rules.own, rules.gaps = map[string]bool{}, map[string]bool{}
	for _, v := range p.volumes {
		for _, live := range b.plan.shown(v.volume.ID, snapshot.Own) {
			rules.own[live] = true
		}
		s := b.cap.snaps[v.volume.ID]
		if s == nil {
			continue
		}
		for _, g := range s.Gaps() {
			shown := b.plan.shown(v.volume.ID, g.Path)
			if len(shown) == 0 {
				shown = []string{g.Path}
			}
			for _, live := range shown {
				rules.gaps[live] = true
				b.leftOut(job.StepCapture, live, g.Code, g.Reason)
			}
		}
	}
}

// A storer reads the sources of the plan into the repository. It returns what it
