package cow

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/opened"
	"stillpoint/internal/volume"
)

// Watch keeps a filter on a volume: files opened from now on are shielded.
func (p *Provider) Watch(ctx context.Context, v volume.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := open(v)
	if err != nil {
		return err
	}
	err = fanotify.AbleOn(root)
	root.Close()
	if err != nil {
		return problem.New(problem.NoProvider, string(v.ID), err)
	}
	f, err := p.acquire(v)
	if err != nil {
		return err
	}
	p.mu.Lock()
	first := !p.kept[v.ID]
	p.kept[v.ID] = true
	p.mu.Unlock()
	if !first {
		return p.giveBack(v.ID, f)
	}
	p.legacy.keep(f.estate(string(v.ID)))
	p.legacy.forget(f.unwatched())
	return nil
}

// Unwatch gives the filter of a volume back.
func (p *Provider) Unwatch(id volume.ID) error {
	p.mu.Lock()
	f, kept := p.filters[id], p.kept[id]
	delete(p.kept, id)
	p.mu.Unlock()
	if !kept {
		return nil
	}
	p.legacy.keep(f.estate(f.unwatched())) // sets may have it still
	p.legacy.forget(string(id))
	return p.giveBack(id, f)
}

// Watched lists the filters.
func (p *Provider) Watched() []snapshot.Watched {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []snapshot.Watched
	for id, f := range p.filters {
		w := snapshot.Watched{
			Volume: id, Kept: p.kept[id], Armed: len(f.turns.current().shields) > 0, Events: f.turns.count(),
			Since: f.since, Inherited: f.inherited,
		}
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b snapshot.Watched) int { return strings.Compare(string(a.Volume), string(b.Volume)) })
	return all
}

// count is how many events there were.
func (ts *turns) count() int64 {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.taken
}

// morePaths is how many files are named for each process.
const morePaths = 20

// withoutBorrowed leaves out what this process seems to have open because
// another scan, or who looked for the holder of a lease, has duplicated another one's
// descriptor while this one looked at us.
func withoutBorrowed(uses []hot.Use, self int) []hot.Use {
	others := map[uint64]bool{}
	for _, u := range uses {
		if u.Kind == hot.Descriptor && u.PID != self {
			others[u.Inode] = true
		}
	}
	return slices.DeleteFunc(uses, func(u hot.Use) bool { return u.Kind == hot.Descriptor && u.PID == self && others[u.Inode] })
}

// Unseen finds what is hot on a volume.
func (p *Provider) Unseen(ctx context.Context, v volume.Volume) ([]snapshot.Unseen, error) {
	root, err := open(v)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(root.Fd()), &st); err != nil {
		return nil, err
	}
	prober, err := opened.NewProber()
	if err != nil {
		return nil, fmt.Errorf("ask for events of open files: %w", err)
	}
	defer prober.Close()
	leased, err := leasesOn(st.Dev)
	if err != nil {
		return nil, err
	}
	uses, err := hot.Scan(ctx, st.Dev, hot.Options{Shielded: shielded(prober, leased)})
	if err != nil {
		return nil, err
	}
	// What has no name is in no snapshot: a temporary file, or a cache file of
	// another agent.
	uses = slices.DeleteFunc(uses, func(u hot.Use) bool { return u.Nameless })
	uses = withoutBorrowed(uses, os.Getpid())
	var all []snapshot.Unseen
	for _, g := range hot.ByProcess(uses) {
		u := snapshot.Unseen{PID: g.PID, Program: g.Program, Kind: string(g.Kind), Files: g.Files(), Advice: g.String()}
		for _, use := range g.Uses {
			if use.Path != "" && !slices.Contains(u.Paths, use.Path) && len(u.Paths) < morePaths {
				u.Paths = append(u.Paths, use.Path)
			}
		}
		all = append(all, u)
	}
	return all, nil
}

var _ snapshot.Watcher = (*Provider)(nil)
