package job

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"stillpoint/internal/problem"
)

// poll is how often a log that is followed is looked at.
const poll = 200 * time.Millisecond

// Follow calls line with each line of a log as it is written, and the event that
// is in it, if there is one, until the job has ended or died. It returns what the
// job is then.
func Follow(ctx context.Context, dir, idOrPrefix string, line func(raw []byte, e *Event) error) (Summary, *Report, error) {
	id, err := find(dir, idOrPrefix)
	if err != nil {
		return Summary{}, nil, err
	}
	path := filepath.Join(dir, id+suffix)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Summary{}, nil, problem.Newf(problem.NoSuchJob, idOrPrefix, "no job with this id")
	}
	if err != nil {
		return Summary{}, nil, lost(path, "open", err)
	}
	defer f.Close()
	w := &follower{file: f, scanner: scanner{id: id}, line: line}
	for {
		// In this order: who finds the lock free has seen all that is written.
		running, err := locked(f)
		if err != nil {
			return Summary{}, nil, lost(path, "look at", err)
		}
		if err := w.more(); err != nil {
			return Summary{}, nil, err
		}
		if w.report != nil || !running && w.header != nil {
			return w.summary(false), w.report, nil
		}
		select {
		case <-ctx.Done():
			return Summary{}, nil, problem.New(problem.Cancelled, "", context.Cause(ctx))
		case <-time.After(poll):
		}
	}
}

// A follower has read a log so far.
type follower struct {
	scanner
	file *os.File
	rest []byte // a line that is on its way
	line func(raw []byte, e *Event) error
}

// more reads what is new.
func (w *follower) more() error {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		w.rest = append(w.rest, buf[:n]...)
		for {
			at := bytes.IndexByte(w.rest, '\n')
			if at < 0 {
				break
			}
			if err := w.one(w.rest[:at+1]); err != nil {
				return err
			}
			w.rest = w.rest[at+1:]
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return lost(w.file.Name(), "read", err)
		}
	}
}

// one understands a whole line and hands it on.
func (w *follower) one(raw []byte) error {
	w.lines++
	w.keep, w.events = true, w.events[:0]
	if w.take(raw) != nil {
		w.tear(raw)
	}
	for i := range w.events {
		if err := w.line(raw, &w.events[i]); err != nil {
			return err
		}
	}
	if len(w.events) == 0 {
		return w.line(raw, nil)
	}
	return nil
}
