package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// patience is how long a command may take. It may have to wait for another one
// that has the volume group.
const patience = time.Minute

// A console runs commands of LVM, one at a time. While one hangs, it runs no more:
// each would hang, too, and might be the one that has a lock or has suspended a
// device.
type console struct {
	run      runner // a command that looks
	alter    runner // one that changes something, which is never killed
	patience time.Duration
	again    time.Duration // until what could not be undone is tried again

	turn  chan struct{}
	stuck breaker

	aside *console // for what takes no lock of LVM, and so must not wait for who waits for one
}

type runner func(ctx context.Context, name string, args ...string) ([]byte, error)

// host runs those of this process, whoever asks for them.
var host = newConsole()

func newConsole() *console {
	return &console{run: tool.Run, alter: whole, patience: patience, again: again, turn: make(chan struct{}, 1),
		aside: &console{run: tool.Run, patience: glance, turn: make(chan struct{}, 1)}}
}

// glance is how long a command may take that takes no lock.
const glance = 10 * time.Second

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
	if err := c.stuck.refuses(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(life, c.patience)
	defer cancel()
	out, err := run(limited, name, args...)
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.Newf(problem.NoProvider, name, "there is no such program, of the package lvm2")
	case errors.Is(err, tool.ErrStuck):
		return nil, c.stuck.trip(name, err)
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

// boot is the kernel's word for this boot.
func boot() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return trim(b), err
}
