package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

	"stillpoint/internal/agent"
	"stillpoint/internal/backup"
	"stillpoint/internal/cachefile"
	"stillpoint/internal/guard"
	"stillpoint/internal/job"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/btrfs"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/snapshot/dm"
	"stillpoint/internal/snapshot/lvm"
	"stillpoint/internal/snapshot/zfs"
	"stillpoint/internal/volume"
)

// providers names every snapshot provider, best first: what a file system does
// by itself comes before what is put below or around it.
func providers(cache snapshot.CacheChoice) []snapshot.Provider {
	return []snapshot.Provider{btrfs.New(host), newZFS(), newLVM(cache), newDM(cache), &agent.Provider{Local: newCowWith(cache), Socket: agentSocket(), Cache: cache}}
}

// residents are the same for the agent that stays: those take snapshots in it.
func residents(cache snapshot.CacheChoice) []snapshot.Provider {
	return []snapshot.Provider{btrfs.New(host), newZFS(), newLVM(cache), newDM(cache), newCowWith(cache)}
}

// duties are what a guard does when the process that took a snapshot has died.
func duties() []guard.Duty { return []guard.Duty{dm.Duty(), lvm.Duty()} }

// newZFS makes the provider that keeps its records beside the logs of jobs. Without
// that folder it takes nothing, and says so.
func newZFS() snapshot.Provider {
	dir, err := job.DefaultDir()
	if err == nil {
		dir = filepath.Join(filepath.Dir(dir), "zfs")
	}
	return zfs.New(host, dir)
}

// agentSocket is where that one listens.
func agentSocket() string { return cmp.Or(os.Getenv("STILLPOINT_AGENT"), agent.Socket) }

// newCow makes the provider that an agent has.
func newCow() snapshot.Provider { return cow.New(host, cow.Options{}) }

// newCowWith is newCow with a choice that was looked at before.
func newCowWith(cache snapshot.CacheChoice) snapshot.Provider {
	return with(cow.New(host, cow.Options{}), cache)
}

// newLVM makes the provider for logical volumes of LVM.
func newLVM(cache snapshot.CacheChoice) snapshot.Provider {
	p := lvm.New(host)
	if cache.Maximum == "" {
		return p
	}
	size, err := cachefile.ParseSize(cache.Maximum)
	if err != nil {
		panic(err) // as with
	}
	return p.WithMaximum(size)
}

// newDM makes the provider for what lies on device-mapper.
func newDM(cache snapshot.CacheChoice) snapshot.Provider { return with(dm.New(host), cache) }

// with is a provider with a choice that was looked at before.
func with(p snapshot.CacheChooser, cache snapshot.CacheChoice) snapshot.Provider {
	chosen, err := p.WithCache(cache)
	if err != nil {
		panic(err) // cacheFlags.choice has let it pass
	}
	return chosen
}

// host is what is mounted now.
func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// newEngine is where the parts of the program meet. told are the names of those who
// are told how its jobs end; without one it is all whom they concern.
func newEngine(e *env, watch func(job.Event), cache snapshot.CacheChoice, told ...string) (*backup.Engine, error) {
	dir, err := job.DefaultDir()
	if err != nil {
		return nil, err
	}
	apps, err := applications(e)
	if err != nil {
		return nil, err
	}
	c, err := configuration(e)
	if err != nil {
		return nil, err
	}
	return &backup.Engine{Providers: providers(cache), Applications: apps, JobDir: dir, Args: os.Args, Version: version(), Watch: watch, Cache: cache, Ended: tellEnd(only(notifiers(c), told))}, nil
}
