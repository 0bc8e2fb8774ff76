package backup

import (
	"context"
	"slices"

	"stillpoint/internal/candidate"
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
	var all [][]Candidate
	for _, v := range vs {
		all = append(all, e.candidates(ctx, v))
	}
	if path != "" {
		e.settle(ctx, all)
	}
	return slices.Concat(all...), nil
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
	ask := candidate.Check
	if v.Kind == volume.EFI {
		ask = func(context.Context, snapshot.Provider, volume.Volume) error {
			return problem.Newf(problem.VolumeEFI, "", "is the EFI system partition")
		}
	}
	var out []Candidate
	for _, of := range candidate.All(ctx, e.Providers, v, ask) {
		c := Candidate{Volume: v, Provider: of.Provider.Name(), Err: of.Err, Chosen: of.Chosen, Reason: without(string(v.ID), problem.Text(of.Err))}
		if of.Err == nil {
			c.Reason = of.Provider.About()
		}
		if of.Named != "" {
			c.Reason = "only where it is named (--provider " + c.Provider + "): " + of.Named
		}
		if of.Passed != "" {
			c.Reason += "; " + of.Passed
		}
		out = append(out, c)
	}
	last := Candidate{Volume: v, Provider: None, Reason: "reads the live files, on demand only (--provider none): what changes meanwhile is noticed, not prevented"}
	return append(out, last)
}

// settle says of the candidates of several volumes what a backup of all of them makes
// of the choice.
func (e *Engine) settle(ctx context.Context, all [][]Candidate) {
	var set []candidate.Share
	for _, of := range all {
		s := candidate.Share{Volume: of[0].Volume}
		for i, p := range e.Providers {
			if of[i].Chosen {
				s.Provider = p
			}
		}
		set = append(set, s)
	}
	err := candidate.Settle(ctx, e.Providers, set)
	for k, of := range all {
		for i, p := range e.Providers {
			switch c := &of[i]; {
			case !c.Chosen && set[k].Left != nil && p == set[k].Provider:
				c.Chosen = true
			case !c.Chosen:
			case set[k].Left != nil:
				c.Chosen = false
				c.Reason += "; but not in one set with the others: " + problem.Text(set[k].Left)
			case err != nil:
				c.Reason += "; but the set fails: " + problem.Text(err)
			}
		}
	}
}
