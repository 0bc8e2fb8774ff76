package main

import (
	"cmp"
	"context"
	"os"

	"stillpoint/internal/agent"
	"stillpoint/internal/backup"
	"stillpoint/internal/job"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/btrfs"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/volume"
)

// providers names every snapshot provider, best first: what a file system does
// by itself comes before what is put below or around it.
func providers() []snapshot.Provider {
	return []snapshot.Provider{btrfs.New(host), &agent.Provider{Local: newCow(), Socket: agentSocket()}}
}

// residents are the same for the agent that stays: those take snapshots in it.
func residents() []snapshot.Provider { return []snapshot.Provider{btrfs.New(host), newCow()} }

// agentSocket is where that one listens.
func agentSocket() string { return cmp.Or(os.Getenv("STILLPOINT_AGENT"), agent.Socket) }

// newCow makes the provider that an agent has.
func newCow() snapshot.Provider { return cow.New(host, cow.Options{}) }

// host is what is mounted now.
func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// newEngine is where the parts of the program meet.
func newEngine(watch func(job.Event)) (*backup.Engine, error) {
	dir, err := job.DefaultDir()
	if err != nil {
		return nil, err
	}
	return &backup.Engine{Providers: providers(), JobDir: dir, Args: os.Args, Version: version(), Watch: watch}, nil
}
