package dm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// The free space where a cache file lies is looked at the more often the less
// there is: at that rate nobody fills it between two looks.
const (
	fastest = 2 << 30 // bytes a second
	seldom  = 250 * time.Millisecond
	often   = 5 * time.Millisecond
)

// watch looks how the snapshot does, until it is released. One that is lost is
// taken away at once: who writes to the volume is not to wait for it, and others
// need the room of the cache file.
func (t *target) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released || t.quit != nil {
		return
	}
	t.quit, t.ended = make(chan struct{}), make(chan struct{})
	go t.watchUntil(t.quit, t.ended)
}

func (t *target) watchUntil(quit <-chan struct{}, ended chan<- struct{}) {
	defer close(ended)
	for next := time.Duration(0); !t.over.Load(); {
		select {
		case <-quit:
			return
		case <-time.After(next):
		}
		next = t.look()
		if t.lost.Load() != nil {
			t.drop()
			return
		}
	}
}

func (t *target) stopWatch(ctx context.Context) {
	t.mu.Lock()
	quit, ended := t.quit, t.ended
	t.quit = nil
	t.mu.Unlock()
	if quit == nil {
		return
	}
	close(quit)
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// drop takes a snapshot away that is lost, and goes on until that is done. Release, which
// may come meanwhile, says why it is not.
func (t *target) drop() {
	if t.leaveSoon() != nil {
		t.tryAgain()
	}
}

// look gives the snapshot up where it cannot be good any more, and says when to
// look again. It does so until the snapshot has ended, which may be hindered.
func (t *target) look() time.Duration {
	if t.over.Load() {
		return seldom
	}
	going := t.going.Load()
	next, err := t.examine(going)
	if err != nil && t.going.Load() == going && !t.over.Load() { // or we were about to take away what is not there
		t.lose(err)
	}
	return next
}

// examine is why a snapshot cannot be good. Of one that is being taken away only what it
// takes from others matters.
func (t *target) examine(going bool) (next time.Duration, why error) {
	valid := true
	if !going {
		if err := t.unchanged(); err != nil {
			return seldom, err
		}
		state, err := t.set.control.State(t.snap.Number)
		if err != nil {
			return seldom, err
		}
		var used int64
		used, valid = parseState(state)
		t.used.Store(max(t.used.Load(), used))
	}
	if err := t.isNeededElsewhere(); err != nil && valid {
		return seldom, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.store.file == nil && !t.store.isRoomed() {
		return seldom, nil
	}
	if !valid {
		return seldom, t.store.whyInvalid(t)
	}
	if err := t.spareIsGood(); err != nil {
		return seldom, err
	}
	if t.store.isRoomed() {
		return seldom, nil
	}
	return t.store.leavesRoom()
}

// leavesRoom is nil where the cache file leaves others what they are to have, and says when
// to look again.
func (s *store) leavesRoom() (next time.Duration, why error) {
	if why := s.limits.Short(); why != "" {
		return seldom, problem.Newf(problem.CacheFull, s.dir, "the cache file has ended itself: %s", why)
	}
	free, err := s.free()
	if err != nil {
		return seldom, problem.New(problem.CacheLost, s.dir, err)
	}
	floor := s.limits.Floor
	if free < floor {
		return seldom, problem.Newf(problem.CacheFull, s.dir,
			"only %d MiB are left free on the volume of the cache file, which has ended itself to make room", max(0, free)>>20)
	}
	return min(seldom, max(often, time.Duration(free-floor)*time.Second/fastest)), nil
}

// parseState reads what a snapshot says of itself: "USED/ALL METADATA", in
// sectors, and a word where it is none any more (snapshot_status in
// drivers/md/dm-snap.c).
func parseState(state []dm.Target) (used int64, valid bool) {
	if len(state) != 1 || state[0].Type != "snapshot" {
		return 0, false
	}
	var all, metadata int64
	n, err := fmt.Sscanf(state[0].Params, "%d/%d %d", &used, &all, &metadata)
	return used * sector, n == 3 && err == nil
}

// whyInvalid finds out why the kernel has given a snapshot up, which it does not
// say: there was no room in the store, or below it, or it could not be written.
func (s *store) whyInvalid(t *target) error {
	if s.isRoomed() {
		return s.whyRoomed(t)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(s.file.Fd()), &st); err != nil {
		return problem.New(problem.CacheLost, s.dir, err)
	}
	held := min(st.Blocks*sector, s.limits.Maximum)
	t.used.Store(max(t.used.Load(), held))
	if held+int64(s.chunk())*sector*2 >= s.limits.Maximum {
		t.used.Store(s.limits.Maximum)
		return problem.Newf(problem.CacheFull, s.dir, "the cache file has reached its maximum of %d MiB", s.limits.Maximum>>20)
	}
	free, err := s.free()
	if err == nil && free < max(s.limits.Floor, int64(s.chunk())*sector*16) {
		return problem.Newf(problem.CacheFull, s.dir, "only %d MiB are left free on the volume of the cache file", max(0, free)>>20)
	}
	return problem.New(problem.CacheLost, s.dir, errors.Join(err, errors.New("the kernel could not write the cache file, or read an original")))
}
