package job

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"stillpoint/internal/problem"
)

// A Tally counts exceptions and what was left out while a job runs, from any
// goroutine. The zero value is ready.
type Tally struct {
	mu         sync.Mutex
	exceptions map[problem.Code]*Exceptions
	leftOut    map[leftOutKey]*LeftOut
}

type leftOutKey struct {
	code   problem.Code
	reason string
}

// Exception counts one, of this name if it has one.
func (t *Tally) Exception(code problem.Code, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exceptions == nil {
		t.exceptions = map[problem.Code]*Exceptions{}
	}
	x := t.exceptions[code]
	if x == nil {
		x = &Exceptions{Code: code}
		t.exceptions[code] = x
	}
	x.Count++
	if name != "" && len(x.Names) < NamesKept {
		x.Names = append(x.Names, name)
	}
}

// Forget begins anew, but for the codes that it is to keep.
func (t *Tally) Forget(but ...problem.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leftOut = nil
	for code := range t.exceptions {
		if !slices.Contains(but, code) {
			delete(t.exceptions, code)
		}
	}
}

// LeftOut counts path among what was left out for this reason; code is empty
// where a rule, and no failure, left it out.
func (t *Tally) LeftOut(code problem.Code, reason, path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leftOut == nil {
		t.leftOut = map[leftOutKey]*LeftOut{}
	}
	l := t.leftOut[leftOutKey{code, reason}]
	if l == nil {
		l = &LeftOut{Reason: reason, Code: code}
		t.leftOut[leftOutKey{code, reason}] = l
	}
	l.Count++
	if len(l.Names) < NamesKept {
		l.Names = append(l.Names, path)
	}
}

// Fill puts the numbers into a report, most first.
func (t *Tally) Fill(r *Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Exceptions, r.LeftOut = nil, nil
	for _, x := range t.exceptions {
		x := *x
		x.Names = slices.Clone(x.Names)
		r.Exceptions = append(r.Exceptions, x)
	}
	slices.SortFunc(r.Exceptions, func(a, b Exceptions) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(string(a.Code), string(b.Code)))
	})
	for _, l := range t.leftOut {
		l := *l
		l.Names = slices.Clone(l.Names)
		r.LeftOut = append(r.LeftOut, l)
	}
	slices.SortFunc(r.LeftOut, func(a, b LeftOut) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Reason, b.Reason), strings.Compare(string(a.Code), string(b.Code)))
	})
}
