package cow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/volume"
)

// A legacy is what a provider needs to pass its watches on.
type legacy struct {
	living atomic.Pointer[[]*filter] // all filters, for who can wait for no lock

	mu     sync.Mutex // held while something is told to the holder or the guards
	holder *holder.Holder
	deputy *deputy // is the holder, where nobody has bequeathed to one
	guards map[*guard.Guard]bool
}

// Bequeath gives all watches to a holder, those to come, too, in the place of
// an earlier one. With nil there is none any more; sets that there are have a deputy.
func (p *Provider) Bequeath(h *holder.Holder) error {
	p.legacy.mu.Lock()
	defer p.legacy.mu.Unlock()
	p.legacy.holder = h
	if h == nil {
		return p.dispense()
	}
	var errs []error
	for _, e := range p.estates() {
		errs = append(errs, h.Keep(e))
	}
	defer p.legacy.dismiss()
	p.legacy.follow()
	return errors.Join(errs...)
}

// dispense is for a process that has a holder no more. It is called under the legacy's
// lock.
func (p *Provider) dispense() error {
	if d := p.legacy.deputy; d != nil {
		p.legacy.holder = d.holder
	}
	if len(p.legacy.guards) == 0 {
		return nil
	}
	return p.represent()
}

// represent makes sure that somebody lives who answers for us. It is called under the
// legacy's lock.
func (p *Provider) represent() error {
	if h := p.legacy.holder; h != nil && !ended(h) {
		return nil
	}
	p.legacy.dismiss()
	if err := p.depute(); err != nil {
		return err
	}
	p.legacy.follow()
	return nil
}

func ended(h *holder.Holder) bool {
	select {
	case <-h.Gone():
		return true
	default:
		return false
	}
}

// follow tells all guards who the holder is. That one of them is gone is for its set
// to say.
func (l *legacy) follow() {
	for g := range l.guards {
		_ = g.Follow(l.holder.Handle(), l.holder.Disarmed())
	}
}

// estates are what a holder is to have.
func (p *Provider) estates() (all []holder.Filter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, f := range p.filters {
		all = append(all, f.estate(p.nameOf(id, f)))
	}
	return all
}

func (f *filter) estate(name string) holder.Filter {
	return holder.Filter{Name: name, Since: f.since, Group: f.events, Mount: f.root}
}

// unwatched is before the name of what nobody is to take over: a filter of sets
// that die with this process. It is no volume's id.
const unwatched = "unwatched "

// nameOf is what a holder calls a filter. It is called under mu.
func (p *Provider) nameOf(id volume.ID, f *filter) string {
	if p.kept[id] {
		return string(id)
	}
	return f.unwatched()
}

// unwatched is the name of the filter for what nobody is to take over, and of no other
// one: the next filter of the volume may begin before this one is forgotten.
func (f *filter) unwatched() string { return unwatched + strconv.FormatInt(f.number, 10) }

var filters atomic.Int64 // that there were

// Inherit takes over the watches of an earlier process, of which nothing has
// been watched since, by the ids of their volumes. Those of volumes that are not
// there any more it lets go of.
func (p *Provider) Inherit(ctx context.Context, filters []holder.Filter) (taken []volume.ID, err error) {
	t, err := p.host(ctx)
	if err != nil {
		for _, f := range filters {
			err = errors.Join(err, f.Close())
		}
		return nil, fmt.Errorf("take filters over: %w", err)
	}
	volumes := map[volume.ID]volume.Volume{}
	for _, v := range t.Volumes() {
		volumes[v.ID] = v
	}
	var errs []error
	for _, of := range filters {
		id := volume.ID(of.Name)
		v, there := volumes[id]
		if !there || !same(v, of.Mount) {
			errs = append(errs, of.Close())
			continue
		}
		if err := p.inherit(id, of); err != nil {
			errs = append(errs, fmt.Errorf("take the filter of %s over: %w", id, err))
			continue
		}
		taken = append(taken, id)
	}
	return taken, errors.Join(errs...)
}

// same tells whether a mount is of the volume as it is mounted now.
func same(v volume.Volume, mount *os.File) bool {
	root, err := open(v)
	if err != nil {
		return false
	}
	defer root.Close()
	var a, b syscall.Stat_t
	err = errors.Join(syscall.Fstat(int(root.Fd()), &a), syscall.Fstat(int(mount.Fd()), &b))
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

func (p *Provider) inherit(id volume.ID, of holder.Filter) error {
	f := newFilter(of.Mount, of.Group)
	f.since, f.inherited, f.users = of.Since, true, 1
	if err := f.start(); err != nil {
		return err
	}
	if err := f.arm(); err != nil { // it is, unless the holder could not
		return errors.Join(err, f.stop())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.silence(f); err != nil {
		return errors.Join(err, f.stop())
	}
	p.filters[id], p.kept[id] = f, true
	p.count()
	return nil
}

// count is called under mu when filters came or went.
func (p *Provider) count() {
	all := slices.Collect(maps.Values(p.filters))
	p.legacy.living.Store(&all)
}

// keep gives a filter to the holder, if there is one. That it is gone is for who
// has started it to notice.
func (l *legacy) keep(f holder.Filter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != nil {
		_ = l.holder.Keep(f)
	}
}

// forget takes it back, so that the volume is not in use any more.
func (l *legacy) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != nil {
		_ = l.holder.Forget(name)
	}
}

// guarded makes a guard see to it that the holder does what it is for.
func (p *Provider) guarded(g *guard.Guard) error {
	p.legacy.mu.Lock()
	defer p.legacy.mu.Unlock()
	p.legacy.guards[g] = true
	if err := p.represent(); err != nil {
		return err
	}
	return g.Follow(p.legacy.holder.Handle(), p.legacy.holder.Disarmed())
}

func (p *Provider) guardedNot(g *guard.Guard) {
	p.legacy.mu.Lock()
	defer p.legacy.mu.Unlock()
	delete(p.legacy.guards, g)
	if len(p.legacy.guards) == 0 {
		p.legacy.dismiss()
	}
}
