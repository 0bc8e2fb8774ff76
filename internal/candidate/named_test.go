package candidate

import (
	"context"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// A shy one takes by itself nothing, and what it is named for as it says.
type shy struct {
	provider
	how    string
	hinder error
}

func (p shy) Named(context.Context, volume.Volume) (string, error) { return p.how, p.hinder }

// What a provider takes only where people name it goes to the next one by itself.
func TestNamed(t *testing.T) {
	all, asked := rig(nil, nil)
	none := code(problem.NoProvider)
	able := shy{provider{name: "shy", err: none, asked: asked}, "in 100 MiB", nil}
	full := shy{provider{name: "full", err: none, asked: asked}, "", code(problem.PoolFull)}
	all = append(all[:0:0], able, full, all[1])
	if p, err := Choose(t.Context(), all, plain, Check); err != nil || p.Name() != "b" {
		t.Errorf("%v is chosen, %v", p, err)
	}
	if err := Named(t.Context(), able, plain); err != nil {
		t.Error(err)
	}
	if err := Named(t.Context(), full, plain); problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	if err := Named(t.Context(), all[2], plain); err != nil {
		t.Error(err)
	}
	is := All(t.Context(), all, plain, Check)
	if is[0].Named != "in 100 MiB" || is[0].Chosen || problem.CodeOf(is[0].Err) != problem.NoProvider {
		t.Errorf("of the one that is able: %+v", is[0])
	}
	if is[1].Named != "" || is[1].Chosen || !strings.Contains(problem.Text(is[1].Err), "pool-full") {
		t.Errorf("of the one that is not: %+v", is[1])
	}
	if !is[2].Chosen || is[2].Named != "" {
		t.Errorf("of the next one: %+v", is[2])
	}
}
