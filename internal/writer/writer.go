package writer

import (
	"context"
	"io/fs"
	"time"
)

// A Writer knows one kind of application. Its methods may be called from
// several goroutines.
type Writer interface {
	// Name is the word users know it by: lower case, lasting.
	Name() string

	// Discover finds what runs on this host, in the order of their ids.
	// Instances and an error may come together: what was found is good.
	Discover(ctx context.Context, s Scope) ([]Instance, error)
}

// A Scope is what a job or a user asks about.
type Scope struct {
	// Paths are the selected live paths, resolved, and what is mounted below
	// them: who walks stays on one file system. A writer whose databases
	// are files that anybody may have anywhere looks below these; all others
	// find what there is.
	Paths []string
}

// An Instance is one running application.
type Instance interface {
	// About says what it is. It asks nobody.
	About() About

	// Check is nil when the instance could be brought to rest now, or a
	// problem that says what is missing. It changes nothing.
	Check(ctx context.Context) error

	// Prepare begins a session. When it fails, nothing is left.
	Prepare(ctx context.Context, n Need) (Session, error)
}

// About describes an instance.
type About struct {
	ID      string // unique on this host, lasting: "postgresql:/run/postgresql:5432"
	Writer  string // its writer's name
	Version string // as the application gives it; empty where it cannot be asked

	// Paths are the live directories and files that hold its data, absolute
	// and resolved, the main one first. None when it cannot be asked.
	Paths []string

	// Everywhere says that it is to rest for every capture, whatever is
	// selected.
	Everywhere bool
}

// A Need is what a capture asks of a session.
type Need struct {
	// OneInstant says that all its Paths will show the same instant.
	OneInstant bool

	// Window is the longest that the application may rest, counted from the
	// begin of Freeze.
	Window time.Duration
}

// A Session is an instance on its way through a capture. Freeze is called at
// most once; Thaw may come from another goroutine.
type Session interface {
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) ([]Note, error)
}

// A Note is a file that belongs into the backup, though it is not on any volume.
type Note struct {
	Path     string // live: where a restore puts it
	Content  []byte
	Mode     fs.FileMode // permission bits
	UID, GID uint32
}
