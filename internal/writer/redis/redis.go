package redis

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/sys/listener"
	"stillpoint/internal/sys/process"
	"stillpoint/internal/writer"
)

const name = "redis"

// programs are the names of server processes. A child that writes a file has
// its parent's name and sockets.
var programs = []string{"redis-server", "valkey-server"}

// asking is how long Discover waits for a server to tell its version.
const asking = time.Second

// A Writer knows Redis and Valkey servers.
type Writer struct{ options Options }

// New makes a writer.
func New(o Options) *Writer { return &Writer{o} }

// Name is "redis", also for Valkey.
func (*Writer) Name() string { return name }

// Discover finds the servers of this host by where their processes listen:
// sockets first, else a port of the loopback. Those in containers, which have a
// network and mounts of their own, are not found.
func (w *Writer) Discover(ctx context.Context, _ writer.Scope) ([]writer.Instance, error) {
	found := map[string]*instance{} // by address
	err := process.Processes(func(pid int) {
		if !slices.Contains(programs, process.Name(pid)) || !listener.Here(pid) {
			return
		}
		// The process is gone, or not ours to look at: then Discover runs
		// without rights, and so does all else.
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		addresses, err2 := listener.Of(pid)
		if err != nil || err2 != nil {
			return
		}
		if a, ok := w.choose(addresses); ok && found[a.Address] == nil {
			found[a.Address] = w.instance(a, dir)
		}
	})
	for _, l := range w.options.Logins {
		if l.Address != "" && found[l.Address] == nil {
			found[l.Address] = w.instance(addressOf(l.Address), "")
		}
	}
	var wait sync.WaitGroup
	for _, in := range found {
		wait.Go(func() { in.ask(ctx) })
	}
	wait.Wait()
	all := make([]writer.Instance, 0, len(found))
	for _, in := range found {
		if !in.sentinel {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b writer.Instance) int { return cmp.Compare(a.About().ID, b.About().ID) })
	return all, err
}

// choose takes the address that a login is for, else the first that nobody else
// on the network can listen in on.
func (w *Writer) choose(all []listener.Address) (listener.Address, bool) {
	for _, a := range all {
		if w.options.login(a.Address).Address == a.Address {
			return a, true
		}
	}
	for _, a := range all {
		if a.Network == "unix" || strings.HasPrefix(a.Address, "127.") || strings.HasPrefix(a.Address, "[::1]:") {
			return a, true
		}
	}
	return listener.Address{}, false
}

func addressOf(text string) listener.Address {
	if strings.HasPrefix(text, "/") {
		return listener.Address{Network: "unix", Address: text}
	}
	return listener.Address{Network: "tcp", Address: text}
}

// instance describes a server. Its data is in its working directory, dir: it
// goes there when it starts, and when it is told of another one.
func (w *Writer) instance(a listener.Address, dir string) *instance {
	in := &instance{Address: a, login: w.options.login(a.Address), save: w.options.save(), length: length}
	in.about = writer.About{ID: name + ":" + a.Address, Writer: name}
	if dir != "" {
		in.about.Paths = []string{dir}
	}
	return in
}
