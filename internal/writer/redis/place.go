package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"stillpoint/internal/sys/container"
	"stillpoint/internal/sys/listener"
)

// A place is where a server listens and where its data is.
type place struct {
	listener.Address        // as the server knows it, or as we do
	process          int    // that listens there; 0 where that is not known
	pid              int    // the same, where its address is none of ours
	name             string // by which users know it
	shared           string // with others in its container; they have longer names then
	dir              string // of its data, as we see it
	unseen           error  // why we do not see it

	// foreign says that it has users of its own, as anybody may have: where it
	// seems to be is then no proof of whose it is, and no password is told to it.
	foreign bool
}

// place finds the place of a process. It is none when the process has ended, or
// is not ours to look at, or listens only where others could listen in.
func (w *Writer) place(pid int) (p place, ok bool) {
	own, err := container.Network(pid)
	all, err2 := listener.Of(pid)
	if err != nil || err2 != nil {
		return p, false
	}
	// Its data is in its working directory: it goes there when it starts, and
	// when it is told of another one.
	p.dir, p.unseen = container.Folder(pid)
	if p.Address, ok = w.choose(own, all); !ok {
		return p, false
	}
	if p.Network == "tcp" {
		if own {
			p.pid = pid
		}
	} else if itself, err := container.Listens(pid, p.Address.Address); err == nil && !itself {
		return p, false // the path leads to another's
	} else if at, err := container.Socket(pid, p.Address.Address); err == nil {
		p.Address.Address = at
	} else if errors.Is(err, container.ErrUnseen) {
		p.pid = pid
	} else {
		return p, false
	}
	p.process, p.name = pid, p.Address.Address
	if p.pid != 0 {
		p.name = w.contained(p)
	}
	p.foreign, err = container.Users(pid) // at last: nobody comes back from there
	return p, err == nil
}

// contained is the name of a server in a container: the address at which its
// port is published, the one of those that a login is for, or where its data is,
// or else what the engine calls the container.
func (w *Writer) contained(p place) string {
	if at, err := netip.ParseAddrPort(p.Address.Address); err == nil {
		published := container.Published(p.pid, at.Port())
		for _, a := range published {
			if w.options.login(a).Address == a {
				return a
			}
		}
		if len(published) > 0 {
			return published[0]
		}
	}
	if p.dir != "" {
		return p.dir
	}
	return container.Name(p.pid) + ":" + p.Address.Address
}

// choose takes the address that a login is for, else the first that nobody else
// on the network can listen in on. In a network of its own a server is talked to
// from within.
func (w *Writer) choose(own bool, all []listener.Address) (listener.Address, bool) {
	for _, a := range all {
		if !own && w.options.login(a.Address).Address == a.Address {
			return a, true
		}
	}
	for _, a := range all {
		if own || a.Network == "unix" || strings.HasPrefix(a.Address, "127.") || strings.HasPrefix(a.Address, "[::1]:") {
			return a, true
		}
	}
	return listener.Address{}, false
}

// connect connects to where the server listens.
func (p place) connect(ctx context.Context) (net.Conn, error) {
	at := p.Address.Address
	switch {
	case p.pid == 0:
	case p.Network == "tcp":
		return container.Dial(ctx, p.pid, at)
	default:
		f, err := container.Open(p.pid, at)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		at = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return (&net.Dialer{}).DialContext(ctx, p.Network, at)
}
