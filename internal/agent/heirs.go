package agent

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"stillpoint/internal/holder"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/process"
	"stillpoint/internal/volume"
)

// A testator is a Watcher whose watches can outlive this process.
type testator interface {
	snapshot.Watcher

	// Inherit takes over what another process has passed on, before anything
	// is watched.
	Inherit(context.Context, []holder.Filter) ([]volume.ID, error)

	// Bequeath passes on all watches, those to come, too, until the next call.
	Bequeath(*holder.Holder) error

	// Pulse tells how it is. It waits for nothing.
	Pulse() holder.Pulse
}

// ErrRestart is the cause of a context that ends because another agent is about
// to take the place of this one: what is watched stays so.
var ErrRestart = errors.New("the agent is to be restarted")

// heirs keep what must not end with the agent.
type heirs struct {
	r        *Resident
	of       testator
	unlocked error // why our memory may be swapped out

	holder *holder.Holder // nil where it could not be started; of one goroutine at a time
	shown  chan *holder.Holder
	quit   chan struct{}
	ended  chan struct{}
}

// holderPath is where the next agent finds the holder.
func holderPath(socket string) string { return socket + ".holder" }

// Times of the heirs.
const (
	beats = holder.Heart / 10

	// respite is how long is waited before another holder is started. One that
	// was killed together with us needs no other.
	respite = 200 * time.Millisecond

	// retryHolder is how long is waited after one could not be started.
	retryHolder = 10 * time.Second
)

// inherit takes over what an earlier agent was watching. The estate is to be
// settled when that is passed on anew.
func (r *Resident) inherit(ctx context.Context) *holder.Estate {
	h := r.heirs
	h.unlocked = process.LockMemory()
	if h.unlocked != nil {
		r.o.Log.Warn("memory is not locked: a shortage of it can make others wait for us", "reason", h.unlocked)
	}
	estate, err := holder.Adopt(ctx, holderPath(r.o.Socket))
	if err != nil {
		r.o.Log.Warn("nothing was taken over: what is open can be noticed only from now on", "reason", err)
		return &holder.Estate{}
	}
	if len(estate.Filters) == 0 {
		return estate
	}
	taken, err := h.of.Inherit(ctx, estate.Filters)
	if err != nil {
		r.o.Log.Warn("not everything was taken over", "reason", err)
	}
	for _, id := range taken {
		r.o.Log.Info("watch of an earlier agent taken over", "volume", id)
	}
	return estate
}

// begin passes on what is watched by now, and settles the estate.
func (h *heirs) begin(estate *holder.Estate) {
	if h == nil {
		return
	}
	h.start()
	if err := estate.Taken(); err != nil {
		h.r.o.Log.Warn("the holder of an earlier agent", "reason", err)
	}
	go h.watch()
}

// start starts a holder, or leaves us with none.
func (h *heirs) start() {
	old := h.holder
	next, err := holder.Start(holderPath(h.r.o.Socket), cmp.Or(h.r.o.Alone, holder.Alone))
	if err != nil {
		next = nil
		h.r.o.Log.Warn("there is no holder: what is watched ends with the agent", "reason", err)
	} else if err := next.Unlocked(); err != nil {
		h.r.o.Log.Warn("memory of the holder is not locked", "reason", err)
	}
	if err := h.of.Bequeath(next); err != nil {
		h.r.o.Log.Warn("not all that is watched would outlive the agent", "reason", err)
	}
	if old != nil {
		old.End()
	}
	h.holder = next
}

// watch tells the holder that we are well, as long as we are, and replaces one
// that is gone.
func (h *heirs) watch() {
	defer close(h.ended)
	tick := time.NewTicker(beats)
	defer tick.Stop()
	for {
		var gone <-chan struct{}
		var again <-chan time.Time
		if h.holder != nil {
			gone = h.holder.Gone()
		} else {
			again = time.After(retryHolder)
		}
		if !h.attend(tick, gone, again) {
			return
		}
	}
}

// attend is true when there is another holder.
func (h *heirs) attend(tick *time.Ticker, gone <-chan struct{}, again <-chan time.Time) bool {
	for {
		select {
		case <-h.quit:
			return false
		case h.shown <- h.holder:
		case <-tick.C:
			if p := h.of.Pulse(); h.holder != nil && p.Well {
				h.holder.Beat(p)
			}
		case <-gone:
			h.r.o.Log.Warn("the holder has ended: another one is started")
			select {
			case <-h.quit:
				return false
			case <-time.After(respite):
			}
			h.start()
			return true
		case <-again:
			h.start()
			return true
		}
	}
}

// end ends the holder when nothing is watched any more, or leaves all to it.
func (h *heirs) end(restart bool) {
	if h == nil {
		return
	}
	close(h.quit)
	<-h.ended
	if h.holder == nil || restart {
		return
	}
	_ = h.of.Bequeath(nil)
	h.holder.End()
	_ = os.Remove(holderPath(h.r.o.Socket)) // the next one would, too
}

// A HolderStatus says what keeps watches alive while the agent is replaced.
type HolderStatus struct {
	PID      int    // 0 where there is none
	Unlocked string // why memory of the holder may be swapped out; empty where not
}

// status is nil where nothing could be passed on.
func (h *heirs) status(ctx context.Context) (of *HolderStatus, unlocked string) {
	if h == nil {
		return nil, ""
	}
	of = &HolderStatus{}
	if h.unlocked != nil {
		unlocked = h.unlocked.Error()
	}
	select {
	case now := <-h.shown:
		if now == nil {
			return of, unlocked
		}
		of.PID = now.PID()
		if err := now.Unlocked(); err != nil {
			of.Unlocked = err.Error()
		}
	case <-h.ended:
	case <-ctx.Done():
	}
	return of, unlocked
}

// newHeirs is nil where no provider's watches can outlive this process.
func newHeirs(r *Resident) *heirs {
	for _, p := range r.o.Providers {
		if of, ok := p.(testator); ok {
			return &heirs{r: r, of: of, shown: make(chan *holder.Holder), quit: make(chan struct{}), ended: make(chan struct{})}
		}
	}
	return nil
}
