package agent

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Client is a provider that a Server has. It may be used by several
// goroutines.
type Client struct {
	line
	address  string
	greeting greeting
	session  io.Closer
}

// A line is how requests go to a Server.
type line struct {
	http *http.Client
	end  *ending // nil of an agent that others have started
}

func lineTo(address string) line {
	return line{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", address)
		},
		DisableCompression: true,
	}}}
}

// Dial connects to the Server at a Unix socket, for the provider with the name;
// an address that begins with "@" is abstract, and no name stands for the
// Server's first provider. What is made through the Client ends with Close, and
// with this process.
func Dial(ctx context.Context, address, provider string) (*Client, error) {
	return dial(ctx, address, provider, snapshot.CacheChoice{})
}

func dial(ctx context.Context, address, provider string, cache snapshot.CacheChoice) (*Client, error) {
	c := &Client{line: lineTo(address), address: address}
	// The session outlives ctx.
	request, err := http.NewRequest(http.MethodGet, base+"/session?"+query(provider, cache), nil)
	if err != nil {
		return nil, err
	}
	response, err := c.do(ctx, request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusNotFound {
		response.Body.Close()
		return nil, errOther
	}
	if response.StatusCode == http.StatusUnprocessableEntity {
		defer response.Body.Close()
		f := &failure{}
		if err := gob.NewDecoder(response.Body).Decode(f); err != nil {
			return nil, err
		}
		return nil, f.err()
	}
	if err := gob.NewDecoder(response.Body).Decode(&c.greeting); err != nil {
		response.Body.Close()
		return nil, fmt.Errorf("the agent does not answer as it should: %w", err)
	}
	c.session = response.Body
	return c, nil
}

// base is the URL that all others begin with; the host means nothing.
const base = "http://agent" + prefix

// errOther is of an agent that does not know what it is asked for.
var errOther = problem.Newf(problem.NoAgent, "", "the agent that runs is of another version: start it once more")

// do is http.Do, cancelled by ctx only until the answer begins.
func (c line) do(ctx context.Context, request *http.Request) (*http.Response, error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	response, err := c.http.Do(request.WithContext(own))
	if !stop() || err != nil {
		cancel()
		if err == nil {
			response.Body.Close()
		}
		return nil, errors.Join(ctx.Err(), err)
	}
	response.Body = &cancelled{response.Body, cancel}
	return response, nil
}

// cancelled cancels a request when its answer is closed.
type cancelled struct {
	io.ReadCloser
	cancel func()
}

func (b *cancelled) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// Close ends the session: what it holds is released.
func (c *Client) Close() error {
	err := c.session.Close()
	c.http.CloseIdleConnections()
	return err
}

// call sends a request and decodes the answer into into, unless that is nil.
func (c line) call(ctx context.Context, method, path string, body, into any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var b bytes.Buffer
	if body != nil {
		if err := gob.NewEncoder(&b).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, &b)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if ctx.Err() != nil {
		if err == nil {
			response.Body.Close()
		}
		return ctx.Err()
	}
	if err != nil {
		return problem.New(problem.SnapshotLost, "", fmt.Errorf("the agent does not answer: %w", c.end.because(err)))
	}
	defer response.Body.Close()
	d := gob.NewDecoder(response.Body)
	if response.StatusCode == http.StatusUnprocessableEntity {
		f := &failure{}
		if err := d.Decode(f); err != nil {
			return err
		}
		return f.err()
	}
	if response.StatusCode == http.StatusNotFound {
		return errOther
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the agent answers %s to %s %s", response.Status, method, path)
	}
	if into == nil {
		return nil
	}
	return d.Decode(into)
}

// Name is that of the agent's provider.
func (c *Client) Name() string { return c.greeting.Name }

// About is what the agent's provider says.
func (c *Client) About() string { return c.greeting.About }

// Check asks the agent's provider.
func (c *Client) Check(ctx context.Context, v volume.Volume) error {
	return c.call(ctx, http.MethodPost, c.path()+"/check", v, nil)
}

// Prepare prepares a set in the agent.
func (c *Client) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	p := &pending{c: c, path: c.path() + "/set/" + id}
	if err := c.call(ctx, http.MethodPost, p.path+"/prepare", ts, &p.ready); err != nil {
		return nil, err
	}
	return p, nil
}

// Leftovers asks the agent's provider. What clients of the agent leave the
// agent takes back itself.
func (c *Client) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	var f found
	if err := c.call(ctx, http.MethodPost, c.path()+"/leftovers", nil, &f); err != nil {
		return nil, err
	}
	return c.remotes(f.All), f.Err.err()
}

func (c *Client) path() string { return "/session/" + c.greeting.Session }

func (c *Client) remotes(all []taken) []snapshot.Snapshot {
	var snaps []snapshot.Snapshot
	for _, t := range all {
		snaps = append(snaps, &remote{c: c, path: fmt.Sprintf("%s/snapshot/%d", c.path(), t.Number), taken: t})
	}
	return snaps
}

// A pending is a set in the agent.
type pending struct {
	c     *Client
	path  string
	ready ready
}

func (p *pending) Instants() int                    { return p.ready.Instants }
func (p *pending) Suspends() bool                   { return p.ready.Suspends }
func (p *pending) Ready(ctx context.Context) error  { return p.step(ctx, "ready") }
func (p *pending) Hold(ctx context.Context) error   { return p.step(ctx, "hold") }
func (p *pending) Resume(ctx context.Context) error { return p.step(ctx, "resume") }
func (p *pending) Abort(ctx context.Context) error  { return p.step(ctx, "abort") }

func (p *pending) step(ctx context.Context, name string) error {
	return p.c.call(ctx, http.MethodPost, p.path+"/"+name, nil, nil)
}

func (p *pending) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	var all []taken
	if err := p.c.call(ctx, http.MethodPost, p.path+"/commit", nil, &all); err != nil {
		return nil, err
	}
	return p.c.remotes(all), nil
}

// A remote is a snapshot in the agent.
type remote struct {
	c     *Client
	path  string
	taken taken

	mu    sync.Mutex
	err   error
	parts []snapshot.Part // once they are known
}

func (r *remote) ID() string        { return r.taken.ID }
func (r *remote) Volume() volume.ID { return r.taken.Volume }

// look asks the agent. When it cannot be asked the snapshot is lost.
func (r *remote) look() look {
	var l look
	err := r.c.call(context.Background(), http.MethodGet, r.path, nil, &l)
	if err == nil {
		err = l.Err.err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	if len(l.Parts) > 0 {
		r.parts = l.Parts
	}
	return l
}

// Parts are known also when the agent is gone, if it was asked before.
func (r *remote) Parts() []snapshot.Part {
	r.mu.Lock()
	known := r.parts
	r.mu.Unlock()
	if known == nil {
		known = r.look().Parts
	}
	return known
}

func (r *remote) Gaps() []snapshot.Gap { return r.look().Gaps }

func (r *remote) Root() string {
	if root := r.look().Root; root != "" {
		return root
	}
	return "/proc/self/fd/none"
}

func (r *remote) Err() error {
	r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *remote) Cache() (snapshot.Cache, bool) {
	if c := r.look().Cache; c != nil {
		return *c, true
	}
	return snapshot.Cache{}, false
}

func (r *remote) Release(ctx context.Context) error {
	return r.c.call(ctx, http.MethodDelete, r.path, nil, nil)
}

var (
	_ snapshot.Provider  = (*Client)(nil)
	_ snapshot.CacheUser = (*remote)(nil)
)
