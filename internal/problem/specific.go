package problem

import "slices"

// CodeOf returns the code of err, which is the most specific one in it. Within a
// chain that is the innermost: whoever first understood the failure knows best.
// Of errors that are joined it is that of the first branch, unless another one
// says more; see vague. An error without a code is Uncatalogued, and nil has the
// empty code.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if c := codeOf(err); c != "" {
		return c
	}
	return Uncatalogued
}

func codeOf(err error) Code {
	if err == nil {
		return ""
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		if c := codeOf(u.Unwrap()); c != "" {
			return c
		}
	case interface{ Unwrap() []error }:
		if c := mostSpecific(u.Unwrap()); c != "" {
			return c
		}
	}
	if p, ok := err.(*Problem); ok {
		return p.Code
	}
	return ""
}

// mostSpecific is the code of the branch that says most; of equals, of the first.
func mostSpecific(branches []error) Code {
	best := Code("")
	for _, e := range branches {
		if c := codeOf(e); c != "" && (best == "" || vague(c) < vague(best)) {
			best = c
		}
	}
	return best
}

// vague tells how little a code says of the cause: 0 names it, 1 only the step
// that failed, 2 only what came of it, and 3 says nothing.
func vague(c Code) int {
	switch {
	case c == Uncatalogued:
		return 3
	case slices.Contains([]Code{ReleaseFailed, LeftoverForeign}, c):
		return 2
	case slices.Contains([]Code{SnapshotFailed, NoProvider, WriterFailed, CacheLost, FileUnreadable, RepositoryLost, TargetLost}, c):
		return 1
	}
	return 0
}
