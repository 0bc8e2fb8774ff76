package main

import (
	"fmt"
	"strings"
	"sync"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
)

// shown is how many warnings a job prints while it runs; the log has all.
const shown = 20

// A watcher prints what a job says while it runs.
type watcher struct {
	e       *env
	verbose bool
	quiet   bool
	over    *progress // the line that warnings are printed over

	mu     sync.Mutex
	hidden int
	count  int
}

func (e *env) watcher(verbose, quiet bool) *watcher {
	return &watcher{e: e, verbose: verbose, quiet: quiet || e.json}
}

func (w *watcher) event(ev job.Event) {
	if w.quiet || !w.verbose && ev.Severity != job.Warning || ev.Step == job.StepLog {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count++; w.count > shown && !w.verbose {
		w.hidden++
		return
	}
	var b strings.Builder
	_ = text.Event(&b, ev) // a Builder does not fail
	w.over.above(w.e, b.String())
}

// rest says how many warnings were not printed.
func (w *watcher) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hidden > 0 {
		fmt.Fprintf(w.e.stderr, "… and %d more; `stillpoint job log` has all\n", w.hidden)
	}
}
