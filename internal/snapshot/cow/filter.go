package cow

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
)

// listeners is how many events can be in work at once.
const listeners = 8

// patience is how long somebody who wants to change a file waits for it to be
// saved, before the file is given up.
const patience = 700 * time.Millisecond

// beyond is an offset at which no file can be.
const beyond = 1 << 62

// A filter sees every access to the files of one volume that might change
// them, before it happens. The sets that take the volume share it.
type filter struct {
	root    *os.File // the private mount
	events  *fanotify.Permission
	quit    chan struct{}
	ended   sync.WaitGroup
	users   int     // under the provider's lock
	working []*slot // under mu of the workers
	workers sync.Mutex

	instant chan struct{} // has room for the set that is at its instant

	// mu is held for reading from the look at what follows to the answer,
	// so that who changes that knows that everybody was answered by it.
	mu      sync.RWMutex
	owner   *set // at its instant
	state   state
	shields []*shield.Shield
	armed   atomic.Pointer[[]*shield.Shield] // the same, for who cannot wait for mu

	popularity popularity
	pulse      pulse
	since      time.Time // it exists
	inherited  bool      // from an earlier agent

	queue  sync.Mutex
	held   []fanotify.Event // at the gate
	mapped map[uint64]bool  // inodes that somebody has mapped shared since track
}

// A state says what becomes of an event.
type state int

const (
	passing  state = iota // it is answered; what the shields need is saved before
	tracking              // the same, and new mappings are noted
	gated                 // changes wait for the end of the gate
)

// startFilter starts to filter a volume. From now on files are opened so that
// changes of them can be seen.
func startFilter(root *os.File) (*filter, error) {
	mount, err := inode.Clone(root)
	if err != nil {
		return nil, err
	}
	events, err := fanotify.Open()
	if err != nil {
		mount.Close()
		return nil, err
	}
	f := newFilter(mount, events)
	return f, f.start()
}

// newFilter makes a filter of its parts.
func newFilter(mount *os.File, events *fanotify.Permission) *filter {
	f := &filter{root: mount, events: events, quit: make(chan struct{}), instant: make(chan struct{}, 1), popularity: newPopularity(), since: time.Now()}
	f.armed.Store(&[]*shield.Shield{})
	return f
}

// start begins to filter. When it fails, nothing is left.
func (f *filter) start() error {
	err := f.events.Silence(f.root)
	if err == nil {
		err = f.events.Watch(f.root)
	}
	if err != nil {
		return errors.Join(err, f.stop())
	}
	for range listeners {
		f.startListener()
	}
	f.ended.Go(f.watch)
	f.ended.Go(f.savePopular)
	return nil
}

// stop ends the filter; who waits goes on.
func (f *filter) stop() error {
	err := f.events.Close()
	close(f.quit)
	f.ended.Wait()
	return errors.Join(err, f.root.Close())
}

func (f *filter) startListener() {
	s := &slot{}
	f.workers.Lock()
	defer f.workers.Unlock()
	f.working = append(f.working, s)
	f.ended.Go(func() { f.listen(s) })
}

func (f *filter) listen(s *slot) {
	buf := fanotify.NewBuffer(1)
	for {
		events, err := f.events.Read(buf)
		for _, e := range events {
			f.pulse.saw(e.FD)
			s.begin(e)
			f.handle(e, s)
		}
		var denied *fanotify.Denied
		switch {
		case errors.As(err, &denied):
			f.lose(err) // a live access failed: at least no other one shall
		case errors.Is(err, fanotify.ErrNoRoom): // there is soon, see crowds
		case err != nil:
			return // closed
		}
	}
}

// handle answers one event, now or at the end of the gate.
func (f *filter) handle(e fanotify.Event, s *slot) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := &access{Event: e}
	if f.state == gated && a.waits() {
		if s.take() {
			f.hold(e)
		}
		return
	}
	if f.state == tracking && a.maps() {
		f.note(a.number())
	}
	f.save(a, f.shields)
	if s.take() {
		_ = f.events.Allow(e)
	}
}

// save saves what an access may change, for all snapshots. Of a file of which
// they need nothing more there are soon no more events.
func (f *filter) save(a *access, shields []*shield.Shield) {
	if a.Offset >= beyond {
		return // somebody asks whether there are events at all (package opened)
	}
	unsaved := int64(0)
	for _, s := range shields {
		unsaved = max(unsaved, s.Unsaved(a.number()))
	}
	if (len(shields) > 0 || f.state == tracking) && f.popularity.count(a.number(), unsaved) && f.state == passing {
		_ = f.events.Ignore(int(a.FD))
	}
	if unsaved == 0 {
		return
	}
	from, end, some := a.changes()
	if !some {
		return
	}
	if a.behind() {
		from, end = 0, -1
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range shields {
		s.Save(ctx, a.number(), int(a.FD), from, end)
	}
}
