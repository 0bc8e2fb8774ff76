package cow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"syscall"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/inode"
	"stillpoint/internal/thinpool"
	"stillpoint/internal/volume"
)

// A cache is the cache file of one target. It may lie on a volume that this or
// another set takes: so it is made through a private mount of its own, through
// which nothing that is done makes an event for any of our filters.
type cache struct {
	*cachefile.File
	set    *set
	place  cachefile.Placement
	mount  *os.File
	number uint64 // of its inode
}

// newCache makes the i-th cache file of a placement.
func (s *set) newCache(place cachefile.Placement, i int) (*cache, error) {
	c := &cache{set: s, place: place}
	dir, err := os.Open(place.Dir)
	if err != nil {
		return nil, problem.New(problem.CacheLost, place.Dir, fmt.Errorf("open the folder of the cache file: %w", err))
	}
	defer dir.Close()
	if c.mount, err = inode.CloneWritable(dir); err != nil {
		return nil, problem.New(problem.CacheLost, place.Dir, err)
	}
	if err := s.p.addCache(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	f, err := cachefile.CreateIn(int(c.mount.Fd()), place, i)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	number, nerr := f.Inode()
	s.p.mu.Lock() // other sets look at it
	c.File, c.number = f, number
	s.p.mu.Unlock()
	if nerr != nil {
		return nil, errors.Join(nerr, c.Close())
	}
	return c, nil
}

// addCache silences all filters for a cache, whatever they filter; those to come
// do so themselves.
func (p *Provider) addCache(c *cache) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caches[c] = true
	for _, f := range p.filters {
		if err := f.events.Silence(c.mount); err != nil {
			return err
		}
	}
	return nil
}

// silence silences a new filter for all caches. It is called with mu held.
func (p *Provider) silence(f *filter) error {
	for c := range p.caches {
		if err := f.events.Silence(c.mount); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the file, and the mount that it was made through.
func (c *cache) Close() error {
	c.set.p.mu.Lock()
	delete(c.set.p.caches, c)
	c.set.p.mu.Unlock()
	var err error
	if c.File != nil {
		err = c.File.Close()
	}
	return errors.Join(err, c.mount.Close())
}

// cachesOn has the inodes of cache files that lie on a volume. They are in no
// index, and nobody else can reach them.
func (p *Provider) cachesOn(id volume.ID) map[uint64]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	numbers := map[uint64]bool{}
	for c := range p.caches {
		if c.place.Volume == id && c.number != 0 {
			numbers[c.number] = true
		}
	}
	return numbers
}

// pauseTime is how long is waited for one write to a cache file to end, before
// anybody is held up.
const pauseTime = 2 * time.Second

// quieten keeps everybody from writing to cache files that lie on volumes of the
// set, or on what stands on these: until still is called, what is saved there
// stays in memory. If that gets full, other sets wait; this one fails.
func (s *set) quieten(ctx context.Context) (still func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, pauseTime)
	defer cancel()
	var resumes []func()
	still = func() {
		for _, resume := range resumes {
			resume()
		}
	}
	for _, c := range s.p.cachesAbove(s.targets) {
		resume, err := c.Pause(ctx, c.set == s)
		if err != nil {
			still()
			return nil, problem.New(problem.FreezeBlocked, c.place.Dir, fmt.Errorf("a write to a cache file does not end: %w", err))
		}
		resumes = append(resumes, resume)
	}
	return still, nil
}

// cachesAbove returns the caches that a freeze of the targets concerns.
func (p *Provider) cachesAbove(ts []*target) (all []*cache) {
	frozen := map[volume.ID]bool{}
	for _, t := range ts {
		frozen[t.Volume()] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.caches {
		for _, id := range c.place.On {
			if frozen[id] && c.File != nil {
				all = append(all, c)
				break
			}
		}
	}
	return all
}

// flush writes what was copied ahead, so that there is memory for what has to
// be saved under the freeze.
func (s *set) flush(ctx context.Context) error {
	for _, t := range s.targets {
		if err := t.cache.Flush(ctx); err != nil {
			return t.failed("write what was copied ahead", err)
		}
	}
	return nil
}

// saved is nil as long as all that was to be saved could be: also what was only
// to be written to the cache file after it had been taken.
func (t *target) saved() error { return cmp.Or(t.shield.Err(), t.cache.Err()) }

// Cache says where the cache file is and how full.
func (t *target) Cache() (snapshot.Cache, bool) {
	st := t.cache.Stats()
	return snapshot.Cache{Dir: t.cache.place.Dir, Used: st.Used, Maximum: st.Maximum}, true
}

// place finds the place for the cache files of a set: in dir, if that is named.
func (p *Provider) place(ctx context.Context, set []volume.Volume, r cachefile.Rules, dir string) (cachefile.Placement, []cachefile.Candidate, error) {
	t, err := p.host(ctx)
	if err != nil {
		return cachefile.Placement{}, nil, fmt.Errorf("look for a place for the cache file: %w", err)
	}
	if dir != "" {
		n, err := cachefile.Name(t, dir)
		if err != nil {
			return cachefile.Placement{}, nil, problem.New(problem.CacheNowhere, dir, err)
		}
		if err := syscall.Access(dir, 0); err != nil {
			return cachefile.Placement{}, nil, problem.New(problem.CacheNowhere, dir, err)
		}
		r.Named = []cachefile.Named{n}
	}
	all, short := thinpool.Bounded(t.Volumes())
	maps.Copy(short, r.Against)
	r.Against = short
	return cachefile.Place(r, set, all)
}

var _ snapshot.CacheUser = (*target)(nil)
