// Package writertest holds the checks that every writer passes, each against
// the real application. They ask by writing to it as its clients do: who waits,
// for how long, and who goes on. A writer's test calls Run with a Host that
// makes the writer and starts applications; nothing here knows one by name.
package writertest

import (
	"context"
	"os"
	"testing"
	"time"

	"stillpoint/internal/writer"
)

// A Host is where a writer works. Its functions are called in children of the
// test process, too.
type Host struct {
	// New makes a writer as a process of its own would.
	New func(testing.TB) writer.Writer

	// Start starts an application of its own for the test, which ends with it.
	Start func(testing.TB) App

	// Suspends says that a client's change waits from Freeze to Thaw. Where it
	// does not, the application is consistent by other means.
	Suspends bool

	// Known has the reason for each check that cannot hold.
	Known map[string]string
}

// An App is a running application.
type App interface {
	// ID is the instance's, as the writer gives it.
	ID() string

	// Scope is where the instance is found.
	Scope() writer.Scope

	// Write makes one change as a client does, and returns when it is
	// acknowledged.
	Write(ctx context.Context) error

	// Process is the server's, 0 where there is none.
	Process() int
}

// Limits of the checks. They are generous: a test that is slow is not wrong.
const (
	soon   = 10 * time.Second // in which something must have happened
	window = 2 * time.Second  // that sessions ask for where it is to end
	pause  = 300 * time.Millisecond
)

// Run runs the checks. It must be called in a test that children of the test
// process reach, too, by its name.
func Run(t *testing.T, h Host) {
	if os.Getenv(childVariable) != "" {
		child(t, h)
		return
	}
	for _, c := range []struct {
		name  string
		check func(*C)
	}{
		{"found", checkFound},
		{"rest", checkRest},
		{"thaw without freeze", checkThawOnly},
		{"freeze with a context that is over", checkOver},
		{"thaw overtakes freeze", checkOvertaken},
		{"the window ends by itself", checkWindow},
		{"killed", checkKilled},
		{"stopped", checkStopped},
		{"application stopped", checkServerStopped},
		{"application killed", checkServerKilled},
	} {
		t.Run(c.name, func(t *testing.T) {
			if why := h.Known[c.name]; why != "" {
				t.Skip("cannot hold: " + why)
			}
			c.check(&C{T: t, host: h, app: h.Start(t)})
		})
	}
}

// A C is a check at work, on an application of its own.
type C struct {
	*testing.T
	host Host
	app  App
}

func (c *C) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// within is a context for something that takes no longer.
func (c *C) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), d)
	c.Cleanup(cancel)
	return ctx
}

// instance finds the application's.
func (c *C) instance() writer.Instance {
	c.Helper()
	all, err := c.host.New(c).Discover(c.within(soon), c.app.Scope())
	for _, in := range all {
		if in.About().ID == c.app.ID() {
			return in
		}
	}
	var ids []string
	for _, in := range all {
		ids = append(ids, in.About().ID)
	}
	c.Fatalf("%s is not among %q: %v", c.app.ID(), ids, err)
	return nil
}

// prepare begins a session, which is ended with the check.
func (c *C) prepare(n writer.Need) writer.Session {
	c.Helper()
	s, err := c.instance().Prepare(c.within(soon), n)
	c.must(err)
	return s
}

// goesOn fails unless a client's change is made, and soon.
func (c *C) goesOn(limit time.Duration) {
	c.Helper()
	began := time.Now()
	if err := c.app.Write(c.within(limit)); err != nil {
		c.Fatalf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
	}
}

// begun begins a client's change.
func (c *C) begun() <-chan error {
	done := make(chan error, 1)
	ctx := c.within(time.Minute)
	go func() { done <- c.app.Write(ctx) }()
	return done
}
