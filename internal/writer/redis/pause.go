package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// Times of a pause. The server ends it when nobody has asked for more.
const (
	length = time.Second
	again  = 300 * time.Millisecond
)

// A pause holds the changes of all clients back.
type pause struct {
	in *instance

	mu       sync.Mutex // one question at a time
	conn     *conn
	end      time.Time // it is not asked for beyond this
	until    time.Time // it lasts at least to here
	late     error     // why it may not have lasted all the time
	begun    bool
	finished bool
	stop     chan struct{} // closed by finish
}

// begin begins a pause that ends by itself at end, or soon after us.
func (p *pause) begin(ctx context.Context, end time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return overtaken(p.in)
	}
	p.begun, p.end, p.stop = true, end, make(chan struct{})
	if err := p.ask(ctx); err != nil {
		return err
	}
	go p.renew()
	return nil
}

// ask asks for a pause of the usual length from now.
func (p *pause) ask(ctx context.Context) error {
	now := time.Now()
	d := min(p.in.length, p.end.Sub(now))
	if d <= 0 {
		return p.closed()
	}
	_, err := p.conn.do(ctx, "CLIENT", "PAUSE", d.Milliseconds(), "WRITE")
	switch answered := time.Now(); {
	case err != nil:
	case !p.until.IsZero() && answered.After(p.until):
		err = problem.Newf(problem.WriterTimeout, p.in.ID(), "the pause was renewed %s too late", answered.Sub(p.until).Round(time.Millisecond))
	default:
		p.until = now.Add(d.Truncate(time.Millisecond))
	}
	return err
}

// renew asks again and again, until it fails or is not wanted any more. It
// talks to the server and touches nothing else: volumes may be frozen.
func (p *pause) renew() {
	t := time.NewTicker(again)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
		}
		p.mu.Lock()
		if !p.finished {
			ctx, cancel := context.WithTimeout(context.Background(), length) // then it is late
			p.late = p.ask(ctx)
			cancel()
		}
		stop := p.finished || p.late != nil
		p.mu.Unlock()
		if stop {
			return
		}
	}
}

// finish ends the pause, and no other begins. The first error tells why it did not last
// until now, the second why it could not be ended; then it ends by itself.
func (p *pause) finish(ctx context.Context) (lasted, ended error) {
	now := time.Now()
	p.mu.Lock() // a question under way is answered first, or given up
	defer p.mu.Unlock()
	if p.finished {
		return nil, nil
	}
	p.finished = true
	defer func() { p.conn.close() }()
	if !p.begun {
		return nil, nil
	}
	close(p.stop)
	switch {
	case now.After(p.end):
		lasted = p.closed()
	case p.late != nil:
		lasted = p.late
	case now.After(p.until):
		lasted = problem.Newf(problem.WriterTimeout, p.in.ID(), "the pause was not renewed in time")
	}
	return lasted, p.unpause(ctx)
}

// unpause tries it by another connection, if this one has broken.
func (p *pause) unpause(ctx context.Context) error {
	if p.conn.Err() == nil {
		_, err := p.conn.do(ctx, "CLIENT", "UNPAUSE")
		if err == nil || p.conn.Err() == nil {
			return err
		}
	}
	p.conn.close()
	c, err := p.in.dial(ctx)
	if err != nil {
		return err
	}
	p.conn = c
	_, err = c.do(ctx, "CLIENT", "UNPAUSE")
	return err
}

func (p *pause) closed() error {
	return problem.Newf(problem.WindowClosed, p.in.ID(), "its clients went on when the window was over")
}

func overtaken(in *instance) error {
	return problem.New(problem.WriterFailed, in.ID(), fmt.Errorf("the session was ended while it came to rest: %w", context.Canceled))
}
