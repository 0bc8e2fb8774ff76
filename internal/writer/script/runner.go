package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
	"stillpoint/internal/writer/aide"
)

// Main turns this process into the one that calls scripts, if it is to be that,
// and then never returns. It stands at the beginning of main.
func Main() { aide.Main(program, &runner{}) }

// Scripts are what is to be called, and how.
type Scripts struct {
	All        []string
	Limit      time.Duration
	FreezeFail bool
}

// Resting is how long it may be that they rest.
type Resting struct {
	Asked  time.Time // by the clock on the wall, without the monotonic one
	Window time.Duration
}

// A runner is what the helper process does.
type runner struct {
	Scripts

	work  sync.Mutex // who has it calls scripts
	begun []string   // called with freeze, and not with thaw; of who has work
	err   error      // of thaw; of who has work

	mu     sync.Mutex
	over   bool        // nobody is called with freeze any more
	late   bool        // because the window was over
	window *time.Timer // ends it
	cancel context.CancelFunc
}

// Ready is called first.
func (r *runner) Ready(bool, *bool) error { return nil }

// Load brings the scripts.
func (r *runner) Load(s Scripts, _ *bool) error {
	r.Scripts = s
	return nil
}

// Rest calls all with freeze. When one fails, those called before are called
// with thaw.
func (r *runner) Rest(at Resting, _ *bool) error {
	// A clock that was set meanwhile makes the window no longer.
	left := at.Window - max(time.Since(at.Asked), 0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.work.Lock()
	defer r.work.Unlock()
	r.mu.Lock()
	r.cancel = cancel
	if !r.over {
		r.window = time.AfterFunc(left, r.expire)
	}
	r.mu.Unlock()
	for _, s := range r.All {
		if err := r.ended(); err != nil {
			return aide.Failed(r.undo(err))
		}
		r.begun = append(r.begun, s)
		if err := r.call(ctx, s, freeze); err != nil {
			return aide.Failed(r.undo(err))
		}
	}
	return aide.Failed(r.undo(r.ended()))
}

// undo lets all go on that were called, because of an error if there is one.
func (r *runner) undo(err error) error {
	if err == nil {
		return nil
	}
	if ended := r.ended(); ended != nil {
		err = ended // it is why the script was killed
	}
	word := thaw
	if r.FreezeFail {
		word = freezeFail
	}
	r.goOn(word)
	return err
}

// ended tells why nobody may rest any more.
func (r *runner) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.late:
		return problem.Newf(problem.WindowClosed, "", "the scripts were called with %s when the window was over", thaw)
	case r.over:
		return problem.Newf(problem.WriterFailed, "", "the session was ended while it came to rest")
	}
	return nil
}

// expire ends the rest when the window is over.
func (r *runner) expire() {
	r.mu.Lock()
	r.late = r.late || !r.over
	r.mu.Unlock()
	r.finish()
}

// Thaw calls all with thaw that were called with freeze, and tells whether they
// rested until now.
func (r *runner) Thaw(bool, *bool) error {
	return aide.Failed(r.finish())
}

// End does so when we are gone.
func (r *runner) End() { _ = r.finish() }

// finish ends a Rest that is under way, and then the rest.
func (r *runner) finish() error {
	r.mu.Lock()
	r.over = true
	if r.cancel != nil {
		r.cancel()
	}
	if r.window != nil {
		r.window.Stop()
	}
	late := r.late
	r.mu.Unlock()
	r.work.Lock()
	defer r.work.Unlock()
	r.goOn(thaw)
	if late && r.err == nil {
		return r.ended()
	}
	return r.err
}

// goOn calls all that were called with freeze.
func (r *runner) goOn(word string) {
	begun := r.begun
	r.begun = nil
	r.err = errors.Join(r.err, r.thaw(begun, word))
}

// thaw calls scripts in reverse order, all of them.
func (s Scripts) thaw(all []string, word string) error {
	var errs []error
	for _, script := range slices.Backward(all) {
		errs = append(errs, s.call(context.Background(), script, word))
	}
	return errors.Join(errs...)
}

// call runs a script, and no longer than it may.
func (s Scripts) call(ctx context.Context, path, word string) error {
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	out, err := tool.Command{Name: path, Args: []string{word}}.Run(ctx)
	if err == nil {
		return nil
	}
	code, cause := problem.WriterFailed, err
	var e *tool.Error
	if errors.As(err, &e) {
		cause = e.Err
		out = append(out, e.Stderr...)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code, cause = problem.WriterTimeout, fmt.Errorf("it took longer than %s, and was killed", s.Limit)
	case errors.Is(err, context.Canceled):
		cause = errors.New("it was killed")
	}
	return problem.Newf(code, filepath.Base(path), "%s: %w%s", word, cause, said(out))
}

// said is the end of what a script has printed.
func said(out []byte) string {
	const most = 1000
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.ReplaceAll(strings.ToValidUTF8(string(out), "?"), "\n", "; ")
}
