// Package redis brings Redis and Valkey servers to rest. It knows how to find
// them, their commands, and what of a server is on disk.
//
// At rest all clients' changes wait (CLIENT PAUSE … WRITE, Redis 6.2), expiry
// and eviction too; reads go on. The server does not know whose pause it is, and
// does not end it with the connection: so it is asked for one second at a time,
// again and again, and is over a second after us at the latest.
//
// What is on disk then depends on the server. With an append-only file every
// acknowledged change has been written to it when its buffer is empty, and
// that is all. Without one, the RDB file is as old as its last save, so
// another one is made while changes wait. A server with neither keeps nothing
// on disk; that is left so, because it would load the file when it starts again.
package redis

import "time"

// Options are what cannot be found. The zero value works for servers of this
// host that want no password.
type Options struct {
	Logins []Login

	// Save is how long clients may wait for an RDB file; 10 s.
	Save time.Duration
}

// A Login is how to talk to one server, or to all that have none of their own.
type Login struct {
	// Address is a socket's path, or an address and a port, or whatever else the
	// server is called by; empty for all others, to which the password is then told: any user of the host can start
	// a process that looks like a server. What is given here is tried also if no
	// process of this host is seen to listen there.
	Address string

	Username, Password string
}

func (o Options) save() time.Duration {
	if o.Save == 0 {
		return 10 * time.Second
	}
	return o.Save
}

// login is how to talk to the server at an address.
func (o Options) login(address string) (l Login) {
	for _, of := range o.Logins {
		if of.Address == address {
			return of
		}
		if of.Address == "" {
			l = of
		}
	}
	return l
}
