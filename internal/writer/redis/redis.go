package redis

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/sys/listener"
	"stillpoint/internal/sys/process"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/trust"
)

const name = "redis"

// programs are the names of server processes. A child that writes a file has
// its parent's name and sockets.
var programs = []string{"redis-server", "valkey-server"}

// users are what those are called whom packages and images make for a server.
var users = []string{"redis", "valkey"}

// asking is how long Discover waits for a server to tell its version.
const asking = time.Second

// A Writer knows Redis and Valkey servers.
type Writer struct{ options Options }

// New makes a writer.
func New(o Options) *Writer { return &Writer{o} }

// Name is "redis", also for Valkey.
func (*Writer) Name() string { return name }

// Discover finds the servers of this host by where their processes listen:
// sockets first, else a port of the loopback. Those in containers are reached by
// their mounts and in their network.
func (w *Writer) Discover(ctx context.Context, _ writer.Scope) ([]writer.Instance, error) {
	var places []place
	err := process.Processes(func(pid int) {
		if !slices.Contains(programs, process.Name(pid)) {
			return
		}
		if p, ok := w.place(pid); ok {
			places = append(places, p)
		}
	})
	found := map[string]*instance{} // by name
	shared := map[string]bool{}
	for _, p := range distinct(places) {
		found[p.name] = w.instance(p)
		shared[p.shared] = !p.foreign || shared[p.shared]
	}
	for _, l := range w.options.Logins {
		if l.Address != "" && found[l.Address] == nil && !shared[l.Address] {
			found[l.Address] = w.instance(place{Address: addressOf(l.Address), name: l.Address})
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

// distinct leaves one place for each server, with a name of its own: several in
// one container have their address in it. What has the address, too, is a child.
// Nobody takes the name of one whom he can only look like.
func distinct(places []place) []place {
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(number(a.foreign), number(b.foreign)) })
	var all []place
	for _, p := range places {
		if !slices.ContainsFunc(all, func(a place) bool { return a.name == p.name && a.Address == p.Address && (a.pid == 0) == (p.pid == 0) }) {
			all = append(all, p)
		}
	}
	named := slices.Clone(all)
	for i, p := range named {
		if p.pid != 0 && slices.ContainsFunc(slices.Concat(named[:i], named[i+1:]), func(o place) bool { return o.name == p.name && (p.foreign || !o.foreign) }) {
			all[i].shared, all[i].name = p.name, p.name+":"+p.Address.Address
		}
	}
	return all
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func addressOf(text string) listener.Address {
	if strings.HasPrefix(text, "/") {
		return listener.Address{Network: "unix", Address: text}
	}
	return listener.Address{Network: "tcp", Address: text}
}

// instance describes a server.
func (w *Writer) instance(p place) *instance {
	in := &instance{place: p, save: w.options.save(), length: length}
	if !p.foreign {
		in.login = w.options.login(p.name)
		if p.shared != "" && in.login.Address == "" {
			in.login = w.options.login(p.shared)
		}
	}
	if p.process != 0 && in.login.Address == "" && in.login != (Login{}) {
		if in.stranger = trust.Process(p.process, users...); in.stranger != nil {
			in.login = Login{}
		}
	}
	in.about = writer.About{ID: name + ":" + p.name, Writer: name}
	if p.dir != "" {
		in.about.Paths = []string{p.dir}
	}
	return in
}
