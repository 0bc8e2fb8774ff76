package agent

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"syscall"

	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// A Control is how people talk to the resident agent. What it makes outlives
// it.
type Control struct {
	Cache snapshot.CacheChoice // of what is created; the zero one stands for the agent's own

	line
	address string
}

// NewControl makes a Control of the agent at a socket. It connects when it is
// needed.
func NewControl(address string) *Control { return &Control{line: lineTo(address), address: address} }

// ask is call, with an agent that is not there as an error of its own.
func (c *Control) ask(ctx context.Context, method, path string, body, into any) error {
	err := c.call(ctx, method, path, body, into)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return problem.Newf(problem.NoAgent, c.address, "no agent answers here: start one with `stillpoint agent`, or its systemd unit")
	}
	return err
}

// Status asks how the agent is.
func (c *Control) Status(ctx context.Context) (s Status, err error) {
	err = c.ask(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// Create takes a snapshot of absolute paths, which the agent keeps.
func (c *Control) Create(ctx context.Context, paths []string) (k Kept, err error) {
	err = c.ask(ctx, http.MethodPost, "/kept", creation{paths, c.Cache}, &k)
	return k, err
}

// List lists the kept snapshots.
func (c *Control) List(ctx context.Context) (all []Kept, err error) {
	err = c.ask(ctx, http.MethodGet, "/kept", nil, &all)
	return all, err
}

// Pieces says what a snapshot is made of. They can be read as long as it is
// there. The id may be the beginning of one.
func (c *Control) Pieces(ctx context.Context, id string) (all []capture.Piece, err error) {
	err = c.ask(ctx, http.MethodGet, keptPath(id), nil, &all)
	return all, err
}

// Mounted tells the agent that this process is about to mount a snapshot on a
// folder. The mount is taken away with the snapshot.
func (c *Control) Mounted(ctx context.Context, id, dir string, mountIDs []uint64) error {
	return c.ask(ctx, http.MethodPost, keptPath(id)+"/mount", mounted{dir, mountIDs}, nil)
}

// Delete deletes a snapshot.
func (c *Control) Delete(ctx context.Context, id string) error {
	return c.ask(ctx, http.MethodDelete, keptPath(id), nil, nil)
}

// keptPath is of one kept snapshot. No id, which would be the path of another
// request, is one that there is not.
func keptPath(id string) string { return "/kept/" + url.PathEscape(cmp.Or(id, "-")) }
