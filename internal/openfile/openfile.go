// Package openfile knows what is done with files that are read live, without a
// snapshot, while somebody has them open for writing: they are left out, waited
// for, kept from being opened for writing, or read as they are. It tells of each
// what became of it. The live system comes first: who opens a file for writing
// that is read here gets it at once.
package openfile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/opened"
)

// A Way is what is done with a file that is open for writing.
type Way string

// The ways. The empty one is none: volumes without a snapshot are not read.
const (
	Skip Way = "skip" // leave it out
	Wait Way = "wait" // until it is closed, and leave it out if that takes too long
	Lock Way = "lock" // keep others from opening it for writing while it is read
	Read Way = "read" // as it is
)

// A Treatment is a way with what belongs to it.
type Treatment struct {
	Way  Way
	Wait time.Duration // of Wait
}

// Parse reads a treatment as people write it: fail, skip, wait:30s, lock, read.
func Parse(text string) (Treatment, error) {
	way, wait, timed := strings.Cut(text, ":")
	switch t := (Treatment{Way: Way(way)}); {
	case text == "fail" || text == "":
		return Treatment{}, nil
	case t.Way == Wait && timed:
		d, err := time.ParseDuration(wait)
		t.Wait = d
		if err == nil && d > 0 {
			return t, nil
		}
	case !timed && (t.Way == Skip || t.Way == Lock || t.Way == Read):
		return t, nil
	}
	return Treatment{}, problem.Newf(problem.Usage, text, "is none of fail, skip, wait:30s, lock, read")
}

// String is what Parse reads.
func (t Treatment) String() string {
	switch t.Way {
	case "":
		return "fail"
	case Wait:
		return fmt.Sprintf("wait:%s", t.Wait)
	}
	return string(t.Way)
}

// A Watch treats the files of one run. Its methods may be called from several
// goroutines.
type Watch struct {
	Treatment

	locks *locks
}

// New makes a watch. It must be closed.
func New(ctx context.Context, t Treatment) (*Watch, error) {
	w := &Watch{Treatment: t}
	if t.Way == Lock {
		var err error
		if w.locks, err = newLocks(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Close ends it.
func (w *Watch) Close() {
	if w.locks != nil {
		w.locks.close()
	}
}

// closedLook is how often is looked whether a file was closed, and lockedFor how
// long is waited for a lock of others.
const (
	closedLook = 100 * time.Millisecond
	lockedFor  = time.Second
)

// Opened is asked about a file that was just opened, before it is read. Its error
// leaves the file out. What it returns is called after the reading: an error with
// the code file-changed has the file read again, and any other is an exception of a
// file that is kept. say is told what is no exception.
func (w *Watch) Opened(ctx context.Context, fd int, say func(text string)) (after func() error, err error) {
	if w.Way == Lock {
		return w.lock(ctx, fd)
	}
	written, err := opened.Written(fd)
	switch {
	case err != nil:
		return w.unknown(err), nil
	case !written:
		return func() error { return w.since(fd) }, nil
	}
	switch w.Way {
	case Wait:
		return w.wait(ctx, fd, say)
	case Read:
		return func() error { return asItIs("open for writing, and read as it is (open_files: read)") }, nil
	}
	return nil, problem.Newf(problem.FileOpen, "", "open for writing, and left out (open_files: %s)", w)
}

// since notices that a file was opened for writing while it was read.
func (w *Watch) since(fd int) error {
	written, err := opened.Written(fd)
	if err != nil || !written {
		return nil // it could be told before
	}
	if w.Way == Read {
		return asItIs("opened for writing while it was read, as it is (open_files: read)")
	}
	return problem.Newf(problem.FileChanged, "", "was opened for writing while it was read")
}

func (w *Watch) wait(ctx context.Context, fd int, say func(text string)) (func() error, error) {
	began := time.Now()
	for time.Since(began) < w.Wait {
		select {
		case <-time.After(min(closedLook, w.Wait)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if written, err := opened.Written(fd); err != nil {
			return w.unknown(err), nil
		} else if !written {
			say(fmt.Sprintf("was open for writing, and closed after %s (open_files: %s)", time.Since(began).Round(time.Millisecond), w))
			return func() error { return w.since(fd) }, nil
		}
	}
	return nil, problem.Newf(problem.FileOpen, "", "open for writing for longer than %s, and left out (open_files: %s)", w.Wait, w)
}

func (w *Watch) lock(ctx context.Context, fd int) (func() error, error) {
	number, err := w.locks.take(ctx, fd)
	switch {
	case errors.Is(err, errWritten):
		if err := unlocked(ctx, fd); err != nil {
			return nil, err
		}
		return func() error {
			return asItIs("open for writing, so that it cannot be kept from being written to (open_files: lock)")
		}, nil
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return w.unknown(err), nil
	}
	return func() error {
		wanted, err := w.locks.give(ctx, number)
		if err != nil {
			return asItIs("whether it stayed locked cannot be told: " + err.Error())
		}
		if wanted {
			return problem.Newf(problem.FileChanged, "", "was opened for writing while it was read")
		}
		return nil
	}, nil
}

// unlocked waits a moment for those who lock what they are about to write. No
// lock is taken: it would make a program fail that only tries to take its own.
func unlocked(ctx context.Context, fd int) error {
	for began := time.Now(); time.Since(began) < lockedFor; {
		if locked, err := opened.Locked(fd); err != nil || !locked {
			return nil // locks are not for all file systems
		}
		select {
		case <-time.After(closedLook / 10):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// unknown is for file systems that do not tell. Each file is an exception, in each
// of its readings: which of them is kept is not known here.
func (w *Watch) unknown(err error) func() error {
	return func() error {
		return asItIs(fmt.Sprintf("whether it is open for writing cannot be told (%v), so that it is read as it is (open_files: %s)", err, w))
	}
}

func asItIs(text string) error {
	return problem.Newf(problem.FileOpenRead, "", "%s: its content may be torn", text)
}
