package backup

import (
	"context"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Candidate is what one provider says of one volume.
type Candidate struct {
	Volume   volume.Volume
	Provider string
	Err      error  // nil where it can take the volume
	Chosen   bool   // Auto would take it
	Reason   string // for or against it
}

// Candidates asks every provider about the volume that holds path and those
// mounted below it; without a path, about all volumes with data of this host.
func (e *Engine) Candidates(ctx context.Context, path string) ([]Candidate, error) {
	t, err := volumes(ctx)
	if err != nil {
		return nil, err
	}
	var vs []volume.Volume
	if path == "" {
		for _, v := range t.Volumes() {
			if v.Kind == volume.Local || v.Kind == volume.EFI {
				vs = append(vs, v)
			}
		}
	} else {
		v, _, _, err := t.Find(path)
		if err != nil {
			return nil, err
		}
		vs = append(vs, v)
		for _, b := range t.Below(path) {
			if (b.Volume.Kind == volume.Local || b.Volume.Kind == volume.EFI) && !has(vs, b.Volume.ID) {
				vs = append(vs, b.Volume)
			}
		}
	}
	var out []Candidate
	for _, v := range vs {
		out = append(out, e.candidates(ctx, v)...)
	}
	return out, nil
}

func has(vs []volume.Volume, id volume.ID) bool {
	for _, v := range vs {
		if v.ID == id {
			return true
		}
	}
	return false
}

func (e *Engine) candidates(ctx context.Context, v volume.Volume) []Candidate {
	var out []Candidate
	chosen := false
	for _, p := range e.Providers {
		c := Candidate{Volume: v, Provider: p.Name(), Err: p.Check(ctx, v)}
		if v.Kind == volume.EFI {
			c.Err = problem.Newf(problem.VolumeEFI, "", "is the EFI system partition")
		}
		c.Reason = without(string(v.ID), problem.Text(c.Err))
		if c.Err == nil {
			c.Reason = p.About()
			if why := snapshot.Unasked(p); why != "" {
				c.Reason += "; " + why
			} else {
				c.Chosen = !chosen
				chosen = true
			}
		}
		out = append(out, c)
	}
	last := Candidate{Volume: v, Provider: None, Reason: "reads the live files, on demand only (--provider none): what changes meanwhile is noticed, not prevented"}
	return append(out, last)
}
