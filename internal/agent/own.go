package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// programName is what an agent for one run is called, and how it knows itself.
const programName = "stillpoint-agent"

// listenFD is the descriptor that such an agent is born with.
const listenFD = 3

// dialTime is how long an agent for one run waits for its client.
const dialTime = 30 * time.Second

// Main turns this process into an agent for one run, if it is to be one, and
// then never returns: it ends with its client. It is called first in main, and
// in each TestMain in whose package such an agent is started.
func Main(provider func() snapshot.Provider) {
	if len(os.Args) != 1 || os.Args[0] != programName {
		return
	}
	f := os.NewFile(listenFD, "agent")
	l, err := net.FileListener(f)
	if err != nil {
		os.Exit(1)
	}
	f.Close()
	syscall.CloseOnExec(listenFD)
	s := NewServer(provider())
	// The address is abstract, and so for all who share our network.
	s.only = os.Getppid()
	ctx, end := context.WithCancel(context.Background())
	s.idle = end
	late := time.AfterFunc(dialTime, func() {
		if s.isIdle() {
			end()
		}
	})
	defer late.Stop()
	if err := s.Serve(ctx, l); err != nil {
		os.Exit(1)
	}
	os.Exit(0) // this is no library any more, but the main function of an agent
}

// Start starts an agent for this process alone. It goes on when this process is
// stopped, and ends with it.
func Start(ctx context.Context) (*Client, error) { return start(ctx, snapshot.CacheChoice{}) }

func start(ctx context.Context, cache snapshot.CacheChoice) (*Client, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"}) // an abstract address that the kernel chooses
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	defer f.Close()
	p, err := tool.Self(programName, nil, f)
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	end := ending{done: make(chan struct{})}
	go func() {
		end.err = p.Wait()
		close(end.done)
	}()
	c, err := dial(ctx, l.Addr().String(), "", cache)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("start agent: %w", err)
	}
	c.end = &end
	return c, nil
}

// An ending is how an agent for one run has ended.
type ending struct {
	done chan struct{}
	err  error // after that
}

// because is err, of a call, with how the agent has ended, if it has.
func (e *ending) because(err error) error {
	if e == nil {
		return err
	}
	select {
	case <-e.done:
		if e.err != nil {
			return fmt.Errorf("%w (it has ended: %w)", err, e.err)
		}
	case <-time.After(time.Second): // its connections are closed before it can be waited for
	}
	return err
}

// Socket is where the resident agent listens.
const Socket = "/run/stillpoint/agent.sock"

// A Provider takes snapshots in an agent: the resident one if there is one,
// else one that is started when it is first needed and ends with this process.
type Provider struct {
	Local  snapshot.Provider // the same provider in this process, for questions
	Socket string            // of the resident agent
	Cache  snapshot.CacheChoice

	mu     sync.Mutex
	client *Client
}

// Name is that of the provider in the agent.
func (p *Provider) Name() string { return p.Local.Name() }

// About is what the provider says.
func (p *Provider) About() string { return p.Local.About() }

// Check changes nothing, so it needs no agent.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error { return p.Local.Check(ctx, v) }

// Look is Check without touching the volume.
func (p *Provider) Look(ctx context.Context, v volume.Volume) error {
	if l, ok := p.Local.(snapshot.Looker); ok {
		return l.Look(ctx, v)
	}
	return p.Local.Check(ctx, v)
}

// WithCache is the same provider with another choice.
func (p *Provider) WithCache(c snapshot.CacheChoice) (snapshot.Provider, error) {
	local, err := chosen(p.Local, c)
	if err != nil {
		return nil, err
	}
	return &Provider{Local: local, Socket: p.Socket, Cache: c}, nil
}

// CachePlaces lists the places as this process sees them. An agent that was told
// other ones may take these.
func (p *Provider) CachePlaces(ctx context.Context, v volume.Volume) ([]snapshot.CachePlace, error) {
	c, ok := p.Local.(snapshot.CacheChooser)
	if !ok {
		return nil, nil
	}
	return c.CachePlaces(ctx, v)
}

// Prepare prepares a set in the agent.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	for try := 0; ; try++ {
		c, err := p.connect(ctx)
		if err != nil {
			return nil, problem.New(problem.SnapshotFailed, id, err)
		}
		pending, err := c.Prepare(ctx, id, ts)
		if try > 0 || ctx.Err() != nil || !problem.Is(err, problem.SnapshotLost) {
			return pending, err
		}
		p.forget(c) // the agent is another one by now
	}
}

func (p *Provider) forget(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == c {
		p.client = nil
		_ = c.Close()
	}
}

// Leftovers is empty: an agent takes back what its clients leave, and what an
// agent leaves ends with it.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	return p.Local.Leftovers(ctx)
}

func (p *Provider) connect(ctx context.Context) (*Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	c, err := dial(ctx, p.Socket, p.Local.Name(), p.Cache)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		c, err = start(ctx, p.Cache)
	case err != nil:
		err = fmt.Errorf("the agent at %s: %w", p.Socket, err)
	}
	if err == nil {
		p.client = c
	}
	return c, err
}

var (
	_ snapshot.Looker       = (*Provider)(nil)
	_ snapshot.CacheChooser = (*Provider)(nil)
)
