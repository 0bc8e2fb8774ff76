package backup

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/repository"
)

// findApplications finds what is to be brought to rest. Where nothing is taken a
// snapshot of there is no instant to rest for.
func (b *backing) findApplications(ctx context.Context, rules *rules) error {
	b.apps = &quiesce.Applications{}
	if slices.ContainsFunc(b.plan.volumes, func(v planned) bool { return v.provider != nil }) {
		sel := quiesce.Selection{Volume: b.volumeOf, Live: b.readLive, OneAtATime: b.o.OneAtATime}
		for _, s := range b.plan.sources {
			sel.Paths = append(sel.Paths, s.path)
			for _, g := range s.grafts {
				if !g.empty {
					sel.Mounts = append(sel.Mounts, g.path)
				}
			}
		}
		var err error
		b.apps, err = quiesce.Find(ctx, b.e.Applications, sel, b.tell)
		b.report.Applications = b.applications()
		for _, e := range b.apps.Missed() {
			b.report.Warnings = append(b.report.Warnings, missed(e))
		}
		if err != nil {
			return err
		}
	}
	if b.o.Application {
		if err := b.apps.Require(); err != nil {
			return err
		}
	}
	return b.leaveOut(rules)
}

// missed says of applications that could not be looked for what that means.
func missed(e quiesce.Event) job.Concern {
	text, _, more := strings.Cut(e.Text, "\n")
	if more {
		text += " (the log has the others)"
	}
	return job.Concern{Code: problem.CodeOf(e.Err), Text: "not all applications could be looked for, and what was not found was not brought to rest: " + text}
}

// volumeOf is quiesce.Selection.Volume. Applications make and remove files
// meanwhile; what they have removed counts as lying where it was.
func (b *backing) volumeOf(path string) (id string, taken bool) {
	v, err := b.table.Holder(path)
	if err != nil {
		return "", false
	}
	return string(v.ID), slices.ContainsFunc(b.plan.volumes, func(p planned) bool { return p.volume.ID == v.ID && p.provider != nil })
}

// readLive is quiesce.Selection.Live. What is mounted below the path counts.
func (b *backing) readLive(path string) bool {
	if v, err := b.table.Holder(path); err == nil && b.plan.live(v.ID) {
		return true
	}
	return slices.ContainsFunc(b.plan.sources, func(s source) bool {
		return slices.ContainsFunc(s.grafts, func(g graft) bool {
			return !g.empty && within(path, g.path) && b.plan.live(g.place.volume.ID)
		})
	})
}

// tell writes into the log what becomes of applications. What they could not do
// is counted when it has a consequence.
func (b *backing) tell(e quiesce.Event) {
	ev := job.Event{Step: job.StepQuiesce, Text: e.Text}
	if e.Application != "" {
		ev.Text = e.Application + ": " + e.Text
	}
	if e.Err != nil {
		ev.Severity, ev.Code = job.Warning, problem.CodeOf(e.Err)
	}
	b.event(ev)
}

// leaveOut leaves the files of those out whose policy says so, and counts those
// whose files are as after a power cut. It may be called again.
func (b *backing) leaveOut(rules *rules) error {
	for _, a := range b.apps.All {
		if a.Treated == "" || b.treated[a.ID] {
			continue
		}
		b.treated[a.ID] = true
		if a.Treated == quiesce.Crash {
			b.tally.Exception(problem.CodeOf(a.Err), a.ID)
			at := a.ID
			if len(a.Paths) > 0 {
				at = a.Paths[0]
			}
			b.except(job.Exception{Path: at, Code: problem.CodeOf(a.Err), Step: job.StepQuiesce,
				Reason: "kept as after a power cut, as a policy says for " + a.ID + ": " + problem.Text(a.Err)})
		}
	}
	for _, path := range b.apps.Excluded() {
		if rules.policy[path] {
			continue
		}
		rules.policy[path] = true
		b.plan.sources = slices.DeleteFunc(b.plan.sources, func(s source) bool { return within(path, s.path) })
		b.leftOut(job.StepQuiesce, path, b.reason(path), "a policy says so for an application that could not be brought to rest: "+size(path))
	}
	if len(b.plan.sources) == 0 {
		return problem.Newf(b.reason(""), "", "all that was selected is left out, for its applications could not be brought to rest")
	}
	return nil
}

// reason is the code of the application whose files a path has, or of any.
func (b *backing) reason(path string) problem.Code {
	for _, a := range b.apps.All {
		if a.Treated == quiesce.Exclude && (path == "" || slices.Contains(a.Paths, path)) {
			return problem.CodeOf(a.Err)
		}
	}
	return problem.WriterFailed
}

// size is how much a live directory holds, for people.
func size(path string) string {
	var files, bytes int64
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil {
				files, bytes = files+1, bytes+fi.Size()
			}
		}
		return nil // what cannot be looked at is not counted
	})
	return fmt.Sprintf("%d files of %.1f MiB", files, float64(bytes)/(1<<20))
}

// applications is what the report says of them.
func (b *backing) applications() (all []job.ApplicationReport) {
	for _, a := range b.apps.All {
		r := job.ApplicationReport{
			ID: a.ID, Writer: a.Writer, Version: a.Version, Paths: a.Paths, State: string(a.State),
			Policy: string(a.Policy), AtRest: a.AtRest(), Treated: string(a.Treated), Attempts: a.Attempts,
		}
		if r.AtRest {
			r.Rested = job.Millis(a.Rested)
		}
		if a.Err != nil {
			r.Code, r.Text = problem.CodeOf(a.Err), problem.Text(a.Err)
		}
		all = append(all, r)
	}
	return all
}

// rested is asked when the capture is there.
func (b *backing) rested(rules *rules) error {
	b.report.Applications = b.applications()
	if b.o.Application && !b.apps.AtRest() {
		for _, a := range b.apps.All {
			if a.Err != nil {
				return problem.New(problem.NotApplication, "", a.Err)
			}
		}
		return b.apps.Require()
	}
	return b.leaveOut(rules)
}

// notes are the files that applications want to be restored with theirs.
func (b *backing) notes(s source) (all []repository.Added) {
	for _, n := range b.cap.taken.Notes {
		if within(s.path, n.Path) {
			all = append(all, repository.Added{Path: n.Path, File: &repository.AddedFile{
				Content: n.Content, Mode: uint32(n.Mode.Perm()), UID: n.UID, GID: n.GID, Modified: b.rec.Instant,
			}})
		}
	}
	return all
}
