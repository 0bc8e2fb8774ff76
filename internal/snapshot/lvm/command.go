package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// patience is how long a command may take. It may have to wait for another one
// that has the volume group.
const patience = time.Minute

// A console runs commands of LVM, one at a time. When one hangs, it runs no more:
// each would hang, too, and might be the one that has a lock or has suspended a
// device.
type console struct {
	run   runner // a command that looks
	alter runner // one that changes something, which is never killed

	turn chan struct{}

	mu    sync.Mutex
	stuck error
}

type runner func(ctx context.Context, name string, args ...string) ([]byte, error)

// host runs those of this process, whoever asks for them.
var host = newConsole()

func newConsole() *console {
	return &console{run: tool.Run, alter: whole, turn: make(chan struct{}, 1)}
}

func whole(ctx context.Context, name string, args ...string) ([]byte, error) {
	return tool.Command{Name: name, Args: args, Whole: true}.Run(ctx)
}

// command runs one that looks.
func (c *console) command(ctx context.Context, name string, args ...string) ([]byte, error) {
	return c.next(ctx, ctx, c.run, name, args)
}

// change runs one that changes something, to its end, also when ctx is over by
// then. One that is killed between its messages to a thin pool leaves the pool with a
// transaction that LVM can neither go on with nor take back: "Manual intervention
// may be required" (libdm-deptree.c of lvm2), and the pool is not activated at the next
// boot. LVM blocks all signals while it has the volume group, so SIGTERM ends only
// what still waits for it.
func (c *console) change(ctx context.Context, name string, args ...string) ([]byte, error) {
	return c.next(ctx, context.WithoutCancel(ctx), c.alter, name, args)
}

// next runs one, for as long as life lasts, when those before it have ended.
func (c *console) next(ctx, life context.Context, run runner, name string, args []string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	stuck := c.stuck
	c.mu.Unlock()
	if stuck != nil {
		return nil, stuck
	}
	limited, cancel := context.WithTimeout(life, patience)
	defer cancel()
	out, err := run(limited, name, args...)
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.Newf(problem.NoProvider, name, "there is no such program, of the package lvm2")
	case errors.Is(err, tool.ErrStuck):
		err = problem.New(problem.LVMStuck, name, fmt.Errorf("a command does not end, so no other is run: %w", err))
		c.mu.Lock()
		c.stuck = err
		c.mu.Unlock()
		return nil, err
	case life.Err() != nil:
		return nil, life.Err()
	case limited.Err() != nil:
		return nil, problem.New(problem.Busy, name, fmt.Errorf("another command of LVM seems to be at work: %w", err))
	}
	return out, err
}

// quiet are arguments for all commands that change something: no dmeventd for
// what is there for minutes, and no question.
var quiet = []string{"--yes", "--quiet", "--quiet", "--config", "activation/monitoring=0"}

// A logical volume as lvs reports it.
type logical struct {
	Group     string `json:"vg_name"`
	GroupUUID string `json:"vg_uuid"`
	Name      string `json:"lv_name"`
	UUID      string `json:"lv_uuid"`
	Path      string `json:"lv_dm_path"` // "/dev/mapper/GROUP-NAME"
	Type      string `json:"segtype"`
	Pool      string `json:"pool_lv"`
	Thin      string `json:"thin_id"`
	Tags      string `json:"lv_tags"`
	Size      string `json:"lv_size"`
}

const columns = "vg_name,vg_uuid,lv_name,lv_uuid,lv_dm_path,segtype,pool_lv,thin_id,lv_tags,lv_size"

// list asks for logical volumes, of all volume groups or of those named.
func (c *console) list(ctx context.Context, args ...string) ([]logical, error) {
	out, err := c.command(ctx, "lvs", append([]string{"--reportformat", "json", "--units", "b", "--nosuffix", "-a", "-o", columns}, args...)...)
	if err != nil {
		return nil, err
	}
	var r struct {
		Report []struct {
			LV []logical `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, problem.New(problem.SnapshotFailed, "lvs", fmt.Errorf("its report: %w", err))
	}
	var all []logical
	seen := map[string]bool{}
	for _, part := range r.Report {
		for _, lv := range part.LV {
			if !seen[lv.UUID] { // one line for each of its segments
				all, seen[lv.UUID] = append(all, lv), true
			}
		}
	}
	return all, nil
}

// full is the name that commands take.
func (lv logical) full() string { return lv.Group + "/" + lv.Name }

// boot is the kernel's word for this boot.
func boot() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return trim(b), err
}
