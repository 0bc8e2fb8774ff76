// Package agent lets another process take the snapshots: a Server has a
// provider and offers it on a Unix socket, a Client is that provider for who
// dials. So what has to stay alive while a snapshot is held is a process of its
// own, that Ctrl-Z, a slow repository or a kill of the backup do not concern;
// and it can be there from boot on, with what it needs to know by then.
//
// What is made through a session belongs to it: when the client's end closes,
// for whatever reason, its sets are aborted and its snapshots released. The
// package knows the contract of package snapshot, and no provider.
//
// The protocol is HTTP, for the sake of contexts: a request that the client
// gives up is cancelled in the server. The bodies are gob, for the sake of names
// that are no UTF-8, which JSON would spoil. Both ends are always of the same
// version, which is said in the path.
package agent
