package agent

import (
	"errors"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// prefix begins all paths. It changes with the messages.
const prefix = "/3"

// A greeting is what a client learns first.
type greeting struct {
	Name    string // of the provider
	About   string
	Session string
}

// A ready set is prepared.
type ready struct {
	Instants int
	Suspends bool
}

// A taken is a snapshot right after the instant.
type taken struct {
	Number int // in the session
	ID     string
	Volume volume.ID
}

// A found is what there is of leftovers.
type found struct {
	All []taken
	Err *failure
}

// A creation is a snapshot that the agent is to keep.
type creation struct {
	Paths []string
	Cache snapshot.CacheChoice
}

// A look is what a snapshot says of itself.
type look struct {
	Parts []snapshot.Part
	Gaps  []snapshot.Gap
	Root  string
	Cache *snapshot.Cache
	Err   *failure
}

// A failure is an error. Its code is all that is left of its chain.
type failure struct {
	Code problem.Code
	Text string
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{problem.CodeOf(err), err.Error()}
}

// err is the error again.
func (f *failure) err() error {
	if f == nil {
		return nil
	}
	if f.Code == problem.Uncatalogued {
		return errors.New(f.Text)
	}
	return problem.New(f.Code, "", errors.New(f.Text))
}
