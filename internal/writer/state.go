package writer

import "fmt"

// A State says where an instance is on its way. The words are those of the
// Volume Shadow Copy Service (VSS_WRITER_STATE), as far as there is a
// counterpart.
type State string

// The states, in order.
const (
	Stable            State = "stable"
	WaitingForFreeze  State = "waiting for freeze"
	Frozen            State = "frozen"
	WaitingForThaw    State = "waiting for thaw"
	WaitingForStoring State = "waiting for completion"
	Failed            State = "failed"
)

// A Step is where an instance failed.
type Step string

// The steps.
const (
	AtDiscover Step = "discover"
	AtCheck    Step = "check"
	AtPrepare  Step = "prepare"
	AtFreeze   Step = "freeze"
	AtThaw     Step = "thaw"
)

// An Error is a failure of one instance.
type Error struct {
	ID   string // the instance's
	Step Step
	Err  error // has a code
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.ID, e.Step, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
