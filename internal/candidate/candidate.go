// Package candidate chooses who takes a snapshot of a volume: it asks the providers
// in the order of preference, and knows after which answers the next one is asked,
// and what it means when several volumes are taken in one set. It knows nothing of how
// snapshots are taken.
package candidate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Question is how a provider is asked whether it can take a volume.
type Question func(context.Context, snapshot.Provider, volume.Volume) error

// Check asks as a job does that is about to take the volume.
func Check(ctx context.Context, p snapshot.Provider, v volume.Volume) error { return p.Check(ctx, v) }

// Look asks without touching the volume, as far as the provider can do without.
func Look(ctx context.Context, p snapshot.Provider, v volume.Volume) error {
	if l, ok := p.(snapshot.Looker); ok {
		return l.Look(ctx, v)
	}
	return p.Check(ctx, v)
}

// Named asks a provider that people have named, which may take more than by itself.
func Named(ctx context.Context, p snapshot.Provider, v volume.Volume) error {
	if r, ok := p.(snapshot.OnRequest); ok {
		_, err := r.Named(ctx, v)
		return err
	}
	return p.Check(ctx, v)
}

// Choose returns the first provider that can take a volume, and asks no more. Without
// one the error is that of the first that is of the volume's kind and was hindered; if
// there is none, it has the code no-provider and all reasons.
func Choose(ctx context.Context, providers []snapshot.Provider, v volume.Volume, ask Question) (snapshot.Provider, error) {
	c := choice{of: v}
	for _, p := range providers {
		if c.hear(p, ask(ctx, p, v)); c.made {
			break
		}
	}
	return c.result()
}

// A Candidate is a provider, and what it says of a volume.
type Candidate struct {
	Provider snapshot.Provider
	Err      error  // nil where it can take the volume
	Chosen   bool   // Choose returns it
	Passed   string // why it is not asked although it can
	Named    string // what it would do where people named it, which it does not by itself
}

// All asks all providers about a volume.
func All(ctx context.Context, providers []snapshot.Provider, v volume.Volume, ask Question) []Candidate {
	c := choice{of: v}
	var all []Candidate
	for _, p := range providers {
		of := Candidate{Provider: p, Err: ask(ctx, p, v)}
		switch {
		case c.ended != "" && of.Err == nil:
			of.Passed = "is not asked, for what " + c.ended + " says ends a backup"
		case !c.made:
			c.hear(p, of.Err)
			of.Chosen = c.chosen == p
		}
		all = append(all, of.ifNamed(ctx, v))
	}
	return all
}

// ifNamed asks a provider that is of another kind by itself whether it is so where
// people name it.
func (c Candidate) ifNamed(ctx context.Context, v volume.Volume) Candidate {
	r, ok := c.Provider.(snapshot.OnRequest)
	if ok && problem.CodeOf(c.Err) == problem.NoProvider {
		how, err := r.Named(ctx, v)
		if err != nil {
			c.Err = err
		}
		c.Named = how
	}
	return c
}

// A choice is what answers have come to.
type choice struct {
	of       volume.Volume
	made     bool
	chosen   snapshot.Provider
	err      error  // of the one whose answer ends it
	ended    string // the name of that one
	hindered error  // the first one
	reasons  []string
}

// passing are hindrances that another provider need not have: no room for the cache
// file, or in the pool; a device that is in use for another snapshot now; one in which
// nothing can change, which needs no device below it to be copied. After any other
// failure of the one that is of the volume's kind, such as a suspended device, nobody
// else is asked: what is wrong is worth more than a snapshot of another kind.
var passing = []problem.Code{problem.CacheNowhere, problem.PoolFull, problem.Busy, problem.VolumeReadOnly}

// hear takes the answer of a provider.
func (c *choice) hear(p snapshot.Provider, err error) {
	switch code := problem.CodeOf(err); {
	case err == nil:
		c.made, c.chosen = true, p
	case code == problem.NoProvider:
		c.reasons = append(c.reasons, p.Name()+": "+Reason(c.of, err))
	case slices.Contains(passing, code):
		c.hindered = cmp.Or(c.hindered, err)
	default:
		c.made, c.err, c.ended = true, err, p.Name()
	}
}

func (c *choice) result() (snapshot.Provider, error) {
	switch {
	case c.made:
		return c.chosen, c.err
	case c.hindered != nil:
		return nil, c.hindered
	}
	return nil, problem.New(problem.NoProvider, string(c.of.ID), fmt.Errorf(
		"no snapshot provider can take this %s volume (%s)", c.of.FSType, strings.Join(c.reasons, "; ")))
}

// Reason is what an error says of a volume that need not be named again.
func Reason(v volume.Volume, err error) string {
	return strings.ReplaceAll("\n"+problem.Text(err), "\n"+string(v.ID)+": ", "\n")[1:]
}
