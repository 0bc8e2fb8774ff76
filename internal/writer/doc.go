// Package writer defines how applications are brought to rest for the instant
// of a snapshot. It has the words and the contract, and no behaviour; each
// writer is a package below, passes the checks of writertest, and knows this
// package and its own application.
//
// # Words
//
// A writer knows one kind of application. An instance is one of them that
// runs on this host. A session is an instance on its way through one capture.
// The window is the time in which an application rests; its length is the
// job's to say. A note is a file that a restore of the instance will need.
//
// # The life of a session
//
//	Discover ─ Check ─ Prepare ─ Freeze ─ (the instant) ─ Thaw
//
// Discover finds instances by what the host shows (sockets, processes, files)
// and by the settings. It changes nothing and connects to nothing that it was
// not told of, but for sockets of this host. An instance that is found and
// cannot be talked to is found all the same: Check says what is missing.
//
// Prepare does what is slow: it connects, looks at versions and rights, writes
// out what is dirty. The application goes on. A session owns its connections,
// and nobody else uses them.
//
// Freeze brings the application to rest: when it returns nil, what lies on disk
// and in the page cache is what the application can go on from, and stays so
// until Thaw. It waits for nobody longer than its context says: not for a
// lock that a long query holds, not for a server that does not answer. A
// Freeze that fails has let everything go.
//
// Thaw lets the application go on and ends the session. It is called once for
// every session, whatever happened before: without a Freeze, after a failed
// one, and while one still runs, which it then overtakes: that Freeze fails and
// leaves nothing at rest. It returns the notes, and an error when the rest did
// not last from Freeze to Thaw: then what was captured is not to be trusted.
//
// # What the live system may rely on
//
// No application rests longer than Need.Window, whatever becomes of us: the
// server itself ends the rest when that time is over or when the connection of
// a process that was killed closes, and where it cannot, a process of its own
// does it that outlives ours. Between the return of Freeze and Thaw a writer
// does nothing: volumes may be frozen, and a log line would wait for ever.
//
// # What fails, and which of it is tried again
//
// Every error has a code of package problem. ClassOf puts the codes into the
// four classes that the Volume Shadow Copy Service has: out of resources, timed
// out, retryable, not retryable.
package writer
