package writer

import "stillpoint/internal/problem"

// A Class says what a retry may hope for.
type Class string

// The four classes of the Volume Shadow Copy Service, in the order of
// VSS_E_WRITERERROR_OUTOFRESOURCES (0x800423f1), TIMEOUT (f2), RETRYABLE (f3)
// and NONRETRYABLE (f4).
const (
	OutOfResources Class = "out of resources"
	TimedOut       Class = "timed out"
	Retryable      Class = "retryable"
	NotRetryable   Class = "not retryable"
)

var classes = map[problem.Code]Class{
	problem.WriterResources: OutOfResources,
	problem.WriterTimeout:   TimedOut,
	problem.WindowClosed:    TimedOut,
	problem.WriterRetryable: Retryable,
	problem.WriterGone:      Retryable,
	problem.WriterBusy:      Retryable,
}

// ClassOf tells the class of an error of a writer. What is not known to pass
// is not retryable.
func ClassOf(err error) Class {
	if c, ok := classes[problem.CodeOf(err)]; ok {
		return c
	}
	return NotRetryable
}
