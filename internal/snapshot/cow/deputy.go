package cow

import (
	"fmt"
	"time"

	"stillpoint/internal/holder"
)

// A deputy is a holder for a process that nobody has given one, as long as it has
// sets. A process that is killed dies only when the last of its threads can: one
// that writes to a cache file waits for its disk, or for a freeze of its volume, and
// with it everybody waits who is to be answered by the others. The deputy answers
// them.
type deputy struct {
	holder *holder.Holder
	quit   chan struct{}
}

// depute starts one and gives it all filters. It is called under the legacy's lock.
func (p *Provider) depute() error {
	h, err := holder.Start("", 0)
	if err != nil {
		return err
	}
	d := &deputy{h, make(chan struct{})}
	go d.beat(p)
	p.legacy.holder, p.legacy.deputy = h, d
	for _, e := range p.estates() {
		if err := h.Keep(e); err != nil {
			p.legacy.dismiss()
			return fmt.Errorf("the process that is to answer for us: %w", err)
		}
	}
	return nil
}

// beat tells it that we are well.
func (d *deputy) beat(p *Provider) {
	tick := time.NewTicker(heart / 10)
	defer tick.Stop()
	for {
		select {
		case <-d.quit:
			return
		case <-tick.C:
			if now := p.Pulse(); now.Well {
				d.holder.Beat(now)
			}
		}
	}
}

// dismiss ends it, if there is one. It is called under the lock.
func (l *legacy) dismiss() {
	d := l.deputy
	if d == nil {
		return
	}
	if l.holder == d.holder {
		l.holder = nil
	}
	l.deputy = nil
	close(d.quit)
	d.holder.End()
}
