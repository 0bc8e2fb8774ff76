package lvm

import (
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// A pool of 10 GiB, with metadata of 10 MiB, as it gets full at some rate each 100 ms: a
// snapshot is given up while there is more than the reserve, if that would soon be gone.
func TestTide(t *testing.T) {
	const blocks, nodes = 10 << 30 >> 16, 10 << 20 >> 12
	for _, one := range []struct {
		name       string
		data, meta uint64 // blocks and nodes each 100 ms
		says       string
		least      uint64 // MiB of data, or KiB of metadata, left then
		most       uint64
	}{
		{"slowly", 16, 0, "the thin pool has", 307, 330},
		{"fast", 1600, 0, "the thin pool has", 2000, 2400},
		{"slowly, by metadata", 16, 1, "the metadata", 690, 710},
		{"fast, by metadata", 16, 32, "the metadata", 2900, 3300},
	} {
		var tide tide
		p, at := pool{block: 64 << 10, all: blocks, meta: nodes, used: blocks / 4, metaUsed: nodes / 4}, time.Now()
		if one.meta == 1 {
			p.metaUsed = nodes / 4 * 3
		}
		var err error
		for err == nil && p.used < p.all && p.metaUsed < p.meta {
			if err = tide.roomy(at, p, "vg/pool"); err == nil {
				p.used, p.metaUsed, at = min(p.all, p.used+one.data), min(p.meta, p.metaUsed+one.meta), at.Add(100*time.Millisecond)
			}
		}
		data, meta := p.left()
		left := data >> 20
		if one.meta > 0 {
			left = meta >> 10
		}
		if problem.CodeOf(err) != problem.PoolFull || !strings.Contains(err.Error(), one.says) || left < one.least || left > one.most {
			t.Errorf("%s: with %d left: %v", one.name, left, err)
		}
	}
	// Who has stopped, and a pool that was extended, cost nothing.
	var tide tide
	p, at := pool{block: 64 << 10, all: blocks, meta: nodes, used: blocks / 2}, time.Now()
	for _, step := range []struct{ used, all uint64 }{{blocks / 2, blocks}, {blocks * 7 / 10, blocks}, {blocks * 7 / 10, 2 * blocks}, {blocks * 7 / 10, 2 * blocks}} {
		p.used, p.all = step.used, step.all
		if err := tide.roomy(at, p, "vg/pool"); err != nil {
			t.Errorf("%+v: %v", step, err)
		}
		at = at.Add(horizon)
	}
}

// A pool is looked at so often that nobody fills its reserve between two looks.
func TestNextLook(t *testing.T) {
	p := pool{block: 64 << 10, all: 10 << 30 >> 16, meta: 100 << 20 >> 12}
	for _, one := range []struct {
		left, metaLeft uint64 // MiB
		want           time.Duration
	}{
		{10 << 10, 100, 367 * time.Millisecond}, // by metadata
		{5 << 10, 100, 367 * time.Millisecond},
		{711, 100, 197 * time.Millisecond},
		{400, 100, 45 * time.Millisecond},
		{308, 100, often},
		{100, 100, often},
		{10 << 10, 7, often},
	} {
		p.used, p.metaUsed = p.all-one.left<<20/p.block, p.meta-one.metaLeft<<20/metaBlock
		if got := p.next(); got < one.want-5*time.Millisecond || got > one.want+5*time.Millisecond {
			t.Errorf("%d and %d MiB left: %v, want %v", one.left, one.metaLeft, got, one.want)
		}
	}
	if got := (pool{block: 1 << 20, all: 1 << 20, meta: 4 << 20}).next(); got != seldom {
		t.Errorf("empty: %v", got)
	}
}

// What a snapshot may cost the metadata of its pool is free when it is taken.
func TestLets(t *testing.T) {
	p := pool{block: 64 << 10, all: 10 << 30 >> 16, used: 1 << 16, meta: 10 << 20 >> 12, metaUsed: 1300}
	for _, one := range []struct {
		mapped uint64 // MiB
		lets   bool
	}{{0, true}, {1 << 10, true}, {7 << 10, true}, {8 << 10, false}, {100 << 10, false}} {
		if err := p.lets("vg/pool", one.mapped<<11); (err == nil) != one.lets || err != nil && problem.CodeOf(err) != problem.PoolFull {
			t.Errorf("%d MiB: %v", one.mapped, err)
		}
	}
	p.metaUsed = 1000 // and the trees are no larger
	if err := p.lets("vg/pool", 100<<21); err != nil {
		t.Error(err)
	}
}
