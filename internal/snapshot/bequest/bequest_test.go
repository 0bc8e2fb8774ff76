package bequest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// A provider has leftovers, and fails so many times.
type provider struct {
	snapshot.Provider
	left     []string
	fails    int
	found    error
	released []string
}

func (p *provider) Name() string { return "some" }

func (p *provider) Leftovers(context.Context) (all []snapshot.Snapshot, err error) {
	for _, id := range p.left {
		all = append(all, leftover{p: p, id: id})
	}
	return all, p.found
}

type leftover struct {
	snapshot.Snapshot
	p  *provider
	id string
}

func (l leftover) ID() string { return l.id }

func (l leftover) Release(context.Context) error {
	if l.p.fails > 0 {
		l.p.fails--
		return errors.New("not now")
	}
	l.p.released = append(l.p.released, l.id)
	l.p.left = slices.DeleteFunc(slices.Clone(l.p.left), func(id string) bool { return id == l.id })
	return nil
}

// What the set has left is taken away, and nothing else.
func TestOf(t *testing.T) {
	for name, p := range map[string]*provider{
		"at once":   {},
		"next time": {fails: 3},
		"foreign":   {found: problem.Newf(problem.LeftoverForeign, "x", "not ours")},
	} {
		t.Run(name, func(t *testing.T) {
			p.left = []string{"one/a", "one/b", "oneandmore/a", "two/one", "one"}
			d := Of(p)
			if d.Name != "some" {
				t.Errorf("it is called %q", d.Name)
			}
			execute(p, "one", time.Millisecond, time.Minute)
			slices.Sort(p.released)
			if want := []string{"one", "one/a", "one/b"}; !slices.Equal(p.released, want) {
				t.Errorf("released %v, want %v", p.released, want)
			}
		})
	}
}

// It ends, whatever happens.
func TestLongest(t *testing.T) {
	p := &provider{left: []string{"one/a"}, fails: 1 << 30}
	execute(p, "one", time.Millisecond, 20*time.Millisecond)
	p = &provider{found: errors.New("no answer")}
	execute(p, "one", time.Millisecond, 20*time.Millisecond)
}
