package cow

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

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
	root   *os.File // the private mount
	number int64    // that no other filter of this process has
	events *fanotify.Permission
	quit   chan struct{}
	ended  sync.WaitGroup
	users  int // under the provider's lock

	instant chan struct{} // has room for the set that is at its instant
	turns   *turns
	marks   sync.Mutex // held while events are made to come, or not to

	popularity popularity
	pulse      pulse
	since      time.Time // it exists
	inherited  bool      // from an earlier agent

	notes  sync.Mutex
	mapped map[uint64]bool // inodes that somebody has mapped shared since track; nil before
}

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
	f := &filter{root: mount, number: filters.Add(1), events: events, quit: make(chan struct{}), instant: make(chan struct{}, 1), turns: newTurns(), popularity: newPopularity(), since: time.Now()}
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

// stop ends the filter; who waits goes on. It does not wait for who is stuck.
func (f *filter) stop() error {
	err := f.events.Close()
	close(f.quit)
	ended := make(chan error, 1)
	go func() {
		f.ended.Wait()
		ended <- f.root.Close()
	}()
	select {
	case rerr := <-ended:
		return errors.Join(err, rerr)
	case <-time.After(limit):
		return errors.Join(err, errStuck)
	}
}

func (f *filter) startListener() {
	s := f.turns.add(&slot{listens: true})
	f.ended.Go(func() { f.listen(s) })
}

func (f *filter) listen(s *slot) {
	defer f.turns.remove(s)
	buf := fanotify.NewBuffer(1)
	for {
		events, err := f.events.Read(buf)
		for _, e := range events {
			f.pulse.saw(e.FD)
			f.handle(e, s, f.turns.begin(s, e))
		}
		var denied *fanotify.Denied
		switch {
		case errors.As(err, &denied):
			f.lose(err) // a live access failed: at least no other one shall
		case errors.Is(err, fanotify.ErrNoRoom): // there is soon, see crowds
		case err != nil:
			return // closed, or no descriptor to wait at: the watch starts another one
		case f.turns.spare(s):
			return
		}
	}
}

// handle answers one event, now or at the end of the gate.
func (f *filter) handle(e fanotify.Event, s *slot, t *turn) {
	if f.answer(&access{Event: e}, s, t) {
		f.turns.end(s)
	} else {
		f.turns.end(s)
		f.events.Drop(e)
	}
	f.turns.rest(s)
}

// answer tells whether the event is kept at the gate.
func (f *filter) answer(a *access, s *slot, t *turn) (held bool) {
	for t.state == gated && a.waits() {
		again, held := f.turns.hold(s)
		if held && f.events.Short() {
			t.owner.p.crowds.disperse()
		}
		if again == nil {
			return held
		}
		t = again
	}
	if t.state == tracking && a.maps() {
		f.note(a.number())
	}
	if t.state != passing {
		f.turns.cleared(s)
	}
	enough := f.save(a, t)
	if f.turns.take(s) {
		_ = f.events.Answer(a.Event)
		if enough {
			_ = f.events.Ignore(int(a.FD))
		}
	}
	return false
}

// save saves what an access may change, for all snapshots. It tells whether
// they need nothing more of the file, which has had events enough.
func (f *filter) save(a *access, t *turn) (enough bool) {
	if a.Offset >= beyond {
		return false // somebody asks whether there are events at all (package opened)
	}
	unsaved := int64(0)
	for _, s := range t.shields {
		unsaved = max(unsaved, s.Unsaved(a.number()))
	}
	if len(t.shields) > 0 || t.state == tracking {
		enough = f.popularity.count(a.number(), unsaved) && t.state == passing
	}
	if unsaved == 0 {
		return enough
	}
	from, end, some := a.changes()
	if !some {
		return enough
	}
	if a.behind() {
		from, end = 0, -1
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range t.shields {
		s.Save(ctx, a.number(), int(a.FD), from, end)
	}
	return enough
}
