// Package quiesce knows which applications a selection of paths concerns, how
// they are brought to rest around a capture, how often that is tried, and what
// becomes of those that cannot be: it puts writers and the coordinator
// together, for backups as for snapshots by themselves.
package quiesce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// A Policy says what becomes of an application's files when it cannot be
// brought to rest.
type Policy string

// The policies.
const (
	Exclude Policy = "exclude" // they are left out
	Crash   Policy = "crash"   // they are as after a power cut
	Fail    Policy = "fail"    // there is no capture

	// Default is Crash where all files of the application show one instant,
	// and else Fail.
	Default Policy = ""
)

// Settings say how it is done.
type Settings struct {
	Writers  []writer.Writer
	Policies map[string]Policy // by the name of the writer
	Retries  int               // of a capture that failed for something that may pass
	Wait     time.Duration     // before each of them
	Window   time.Duration     // that applications may rest; 0 for the coordinator's default
}

// Defaults of Settings.
const (
	Retries = 3
	Wait    = 30 * time.Second
)

// A Selection is what is captured.
type Selection struct {
	Paths []string // live, resolved

	// Mounts are what is mounted below the paths and captured with them.
	Mounts []string

	// OneAtATime says that each volume is captured by itself: an application
	// with files on several cannot be at rest for all of them.
	OneAtATime bool

	// Volume tells which volume shows a live path, and whether a snapshot of
	// it is taken that shows the path.
	Volume func(path string) (id string, taken bool)

	// Live tells whether a live path, or part of it, is read without a snapshot:
	// there is no instant at which an application could rest for it. May be nil.
	Live func(path string) bool
}

// concerns tells whether a path is in the selection, or holds some of it.
func (s Selection) concerns(path string) bool {
	return slices.ContainsFunc(s.Paths, func(p string) bool { return within(p, path) || within(path, p) })
}

func (s Selection) live(path string) bool { return s.Live != nil && s.concerns(path) && s.Live(path) }

func within(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// An Application is one that the selection concerns, and how it came through.
type Application struct {
	writer.About
	Policy Policy

	// Volumes are those that its files lie on. Whole says that they are all
	// selected, and that snapshots are taken of all of them.
	Volumes []string
	Whole   bool

	State    writer.State
	Treated  Policy        // how its files are, where it was not brought to rest; else empty
	Attempts int           // captures in which it was to rest
	Rested   time.Duration // in the one that succeeded
	Err      error         // the last error; nil where there was none, or it passed

	instance writer.Instance
}

// AtRest tells whether it was at rest at the instant.
func (a *Application) AtRest() bool { return a.Treated == "" && a.State == writer.WaitingForStoring }

// An Event is something that a log wants to know.
type Event struct {
	Application string // its id; empty where it is about all
	Text        string
	Err         error // has a code; nil where all is well
}

// Applications are those of one selection.
type Applications struct {
	All []*Application // by id

	unknown []*Application // nobody can say where their files are
	missed  error          // why not all were found
	misses  []Event        // the same, as it was told

	s    Settings
	tell func(Event)
}

// How long looking for applications of one kind may take, which for SQLite is a
// walk through all that is selected, and asking one of them.
const (
	discovering = 10 * time.Minute
	asking      = 20 * time.Second
)

// Find finds what the selection concerns and looks whether it can be brought to
// rest. What cannot be and is to fail is the error. tell is told what there is.
func Find(ctx context.Context, s Settings, sel Selection, tell func(Event)) (*Applications, error) {
	a := &Applications{s: s, tell: tell}
	for _, in := range discover(ctx, s.Writers, sel, func(e Event) {
		a.missed = errors.Join(a.missed, e.Err)
		a.misses = append(a.misses, e)
		tell(e)
	}) {
		a.add(in, sel)
	}
	slices.SortFunc(a.All, func(x, y *Application) int { return strings.Compare(x.ID, y.ID) })
	return a, a.check(ctx)
}

// List finds the applications of a selection, or of the host where it has no
// paths, and asks each whether it could be brought to rest.
func List(ctx context.Context, s Settings, sel Selection) ([]*Application, error) {
	var errs []error
	a := &Applications{s: s, tell: func(e Event) {
		if e.Application == "" {
			errs = append(errs, e.Err)
		}
	}}
	for _, in := range discover(ctx, s.Writers, sel, a.tell) {
		a.add(in, sel)
	}
	slices.SortFunc(a.All, func(x, y *Application) int { return strings.Compare(x.ID, y.ID) })
	a.ask(ctx)
	return a.All, errors.Join(errs...)
}

// On are those of the applications that have files on a volume. Who could not be
// asked, or not be looked for, may have some there.
func (a *Applications) On(volume string) *Applications {
	on := &Applications{unknown: a.unknown, missed: a.missed, s: a.s, tell: a.tell}
	for _, app := range a.All {
		if slices.Contains(app.Volumes, volume) {
			on.All = append(on.All, app)
		}
	}
	return on
}

// ask asks all at once whether they could be brought to rest. Also who is not
// known to have files here may be somebody who never answers.
func (a *Applications) ask(ctx context.Context) {
	var wait sync.WaitGroup
	for _, app := range slices.Concat(a.All, a.unknown) {
		if app.Err != nil {
			continue
		}
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, asking)
			defer cancel()
			if err := app.instance.Check(ctx); err != nil {
				app.State, app.Err = writer.Failed, &writer.Error{ID: app.ID, Step: writer.AtCheck, Err: coded(err)}
			}
		})
	}
	wait.Wait()
}

// check does with those that cannot what their policies say.
func (a *Applications) check(ctx context.Context) error {
	a.ask(ctx)
	for _, app := range a.unknown {
		err := problem.Newf(problem.WriterFailed, "", "it cannot be asked where its files are")
		if app.Err != nil {
			err = problem.New(problem.CodeOf(app.Err), "", app.Err)
		}
		a.tell(Event{Application: app.ID, Text: "not brought to rest, for nobody can say where its files are: " + problem.Text(err), Err: err})
	}
	var errs []error
	for _, app := range a.All {
		switch {
		case app.Err == nil:
			a.tell(Event{Application: app.ID, Text: fmt.Sprintf("%s found, will be brought to rest", app.title())})
		case writer.ClassOf(app.Err) != writer.NotRetryable:
			a.tell(Event{Application: app.ID, Text: fmt.Sprintf("%s found; it could not be asked now (%s): %s", app.title(), writer.ClassOf(app.Err), problem.Text(app.Err)), Err: app.Err})
		default:
			errs = append(errs, a.giveUp(app))
		}
	}
	return errors.Join(errs...)
}

func (a *Application) title() string {
	if a.Version == "" {
		return a.Writer
	}
	return a.Writer + " " + a.Version
}

// giveUp does with an application what its policy says.
func (a *Applications) giveUp(app *Application) error {
	switch app.Policy {
	case Exclude:
		app.Treated = Exclude
		a.tell(Event{Application: app.ID, Text: "cannot be brought to rest, its files are left out: " + problem.Text(app.Err), Err: app.Err})
	case Crash:
		app.Treated = Crash
		a.tell(Event{Application: app.ID, Text: "cannot be brought to rest, its files are as after a power cut: " + problem.Text(app.Err), Err: app.Err})
	default:
		app.Treated = Fail
		return app.Err
	}
	return nil
}

// Excluded are the paths whose files are left out, as a policy says.
func (a *Applications) Excluded() (paths []string) {
	for _, app := range a.All {
		if app.Treated == Exclude {
			paths = append(paths, app.Paths...)
		}
	}
	return paths
}

// Missed is what could not be looked for, or only in part: what there is of it was not
// brought to rest.
func (a *Applications) Missed() []Event { return a.misses }

// None tells whether it is known that there are no applications.
func (a *Applications) None() bool {
	return len(a.All) == 0 && len(a.unknown) == 0 && a.missed == nil
}

// AtRest tells whether there are applications, and all of them were at rest. It
// is false, too, where there are some of which nobody can say whether they have
// files in the selection, or not all could be looked for.
func (a *Applications) AtRest() bool {
	return len(a.All) > 0 && len(a.unknown) == 0 && a.missed == nil && !slices.ContainsFunc(a.All, func(app *Application) bool { return !app.AtRest() })
}

// Require is an error where it is known that not all of what was found will be at
// rest, and where nothing was found.
func (a *Applications) Require() error {
	if a.missed != nil {
		return problem.New(problem.NotApplication, "", a.missed)
	}
	if len(a.All) == 0 {
		return problem.Newf(problem.NotApplication, "", "no application that could be brought to rest has files in the selection")
	}
	for _, app := range a.unknown {
		return problem.Newf(problem.NotApplication, "", "%s: nobody can say where its files are", app.ID)
	}
	for _, app := range a.All {
		if app.Treated != "" {
			return problem.New(problem.NotApplication, "", app.Err)
		}
	}
	return nil
}
