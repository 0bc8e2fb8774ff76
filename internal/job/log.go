package job

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// A Log is the log of the job that runs in this process. Its methods may be
// called from several goroutines. They take no context: a job that is cancelled
// still writes down how it ended.
//
// A method that cannot write returns a problem with the code state-lost; the
// line is kept in memory, and every later call tries again.
type Log struct {
	header Header
	now    func() time.Time
	begun  time.Time // with the reading of the monotonic clock

	mu      sync.Mutex
	file    *os.File
	size    int64  // of the whole lines in the file
	pending []byte // whole lines that are not in the file yet
	held    bool
	closed  bool
	others  *os.File // the exceptions, once there are some
	waiting []byte   // whole lines that are not in that file yet
}

// Start says what a job is, for the first line of its log.
type Start struct {
	Kind    Kind
	Args    []string // the command line, as in os.Args; secrets in it are not kept
	Version string
	Now     func() time.Time // the clock of the log; nil for the real one

	Name     string              // that the job has in the configuration; may be empty
	Settings map[string][]string // what it was told to do, so that it can be run again; may be nil
	RetryOf  string              // id of the job that is run again; may be empty
}

// Create makes the log of a new job and the folder for it, if need be. The
// lock on the file is held until Close, or until the process ends.
func Create(dir string, s Start) (*Log, error) {
	if s.Now == nil {
		s.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, lost(dir, "make", err)
	}
	file, err := createFile(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{now: s.Now, begun: s.Now(), file: file}
	l.header = newHeader(strings.TrimSuffix(filepath.Base(file.Name()), suffix), s, l.begun)
	if err := l.begin(dir, s.Settings); err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, err
	}
	return l, nil
}

const suffix = ".jsonl"

// createFile makes a file with a new id and takes its lock. Until it has its
// first line, whoever looks for dead logs may take it for one and remove it:
// then another is made.
func createFile(dir string) (*os.File, error) {
	for {
		path := filepath.Join(dir, strings.ToLower(rand.Text()[:idLength])+suffix)
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, lost(path, "create", err)
		}
		if err := lock(file); err != nil {
			file.Close()
			os.Remove(path)
			return nil, lost(path, "lock", err)
		}
		ours, err := linked(file)
		if ours && err == nil {
			return file, nil
		}
		file.Close()
		if err != nil {
			return nil, lost(path, "look at", err)
		}
	}
}

// idLength makes a collision unlikely (2^50 ids) and an id short enough to type.
const idLength = 10

// begin writes the first line, and one with the settings if there are some, and
// makes sure that a power cut leaves both them and the name.
func (l *Log) begin(dir string, settings map[string][]string) error {
	line, err := encodeLine(lineJob, l.header)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = line
	if settings != nil {
		if err := l.append(settingsEvent(settings)); err != nil {
			return err
		}
	}
	if err := l.sync(); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return lost(dir, "open", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return lost(dir, "sync", err)
	}
	return nil
}

// ID is the id of the job.
func (l *Log) ID() string { return l.header.ID }

// Header is the first line of the log.
func (l *Log) Header() Header { return l.header }

// Add writes an event.
func (l *Log) Add(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(e); err != nil {
		return err
	}
	return l.write()
}

// Intent writes an event and makes sure that it survives a power cut. It is
// called before each step that changes the host, with a name in e.Intent; when
// it fails, the step must not be taken. While the log is held there is no way
// to keep that promise, and Intent fails.
func (l *Log) Intent(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(e); err != nil {
		return err
	}
	if e.Intent == "" {
		return fmt.Errorf("intent without a name: %s", e.Text)
	}
	if l.held {
		return fmt.Errorf("intent %s while the log is held", e.Intent)
	}
	return l.sync()
}

// Hold keeps all further lines in memory until Release: while writes to a file
// system are suspended, a log that lies on it would wait for ever.
func (l *Log) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
}

// Release ends Hold and writes what was kept.
func (l *Log) Release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	return errors.Join(l.write(), l.list())
}

// Finish sets what the log knows in r, as Close does.
func (l *Log) Finish(r *Report) {
	now := l.now()
	r.Job, r.Kind = l.header.ID, l.header.Kind
	r.Started, r.Ended = l.header.Started, stamp(now)
	r.Took = Millis(max(0, now.Sub(l.begun)))
}

// Close sets what the log knows in r, unless Finish did, writes it as the last line,
// and gives the lock back. A log that is held cannot be closed. When the exceptions
// cannot be brought to the disk before, the job has failed, and r says so. When the
// report cannot be written, the log is closed all the same, and reads as that of a
// job that died.
func (l *Log) Close(r *Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return l.errClosed()
	case l.held:
		return fmt.Errorf("close the log of job %s: it is held", l.header.ID)
	}
	if r.Job == "" {
		l.Finish(r)
	}
	xerr := l.unlist()
	if xerr != nil && (r.Status == Complete || r.Status == CompleteWithExceptions) {
		r.Settle(xerr)
	}
	line, err := encodeLine(lineReport, r)
	if err == nil {
		l.pending = append(l.pending, line...)
		err = l.sync()
	}
	l.closed = true
	err = cmp.Or(err, xerr)
	if cerr := l.file.Close(); cerr != nil && err == nil {
		err = lost(l.file.Name(), "close", cerr)
	}
	return err
}

func (l *Log) errClosed() error {
	return fmt.Errorf("log of job %s: %w", l.header.ID, os.ErrClosed)
}

// append adds an event to the lines to be written.
func (l *Log) append(e Event) error {
	if l.closed {
		return l.errClosed()
	}
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	if e.Severity == "" {
		e.Severity = Info
	}
	line, err := encodeLine(lineEvent, e)
	if err != nil && e.Data != nil {
		// Only Data can hold what JSON has no form for. The event itself
		// must not be lost for it.
		e.Data = map[string]any{"lost": err.Error()}
		line, err = encodeLine(lineEvent, e)
	}
	if err != nil {
		return fmt.Errorf("event %q: %w", e.Text, err)
	}
	l.pending = append(l.pending, line...)
	return nil
}

// sync writes all lines and waits until they are on the disk.
func (l *Log) sync() error {
	if err := l.write(); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return lost(l.file.Name(), "sync", err)
	}
	return nil
}

// write brings the pending lines into the file, unless the log is held. What
// could not be written whole stays pending, and of a torn line nothing stays
// in the file.
func (l *Log) write() error {
	if l.held || len(l.pending) == 0 {
		return nil
	}
	n, err := l.file.Write(l.pending)
	whole := bytes.LastIndexByte(l.pending[:n], '\n') + 1
	l.size += int64(whole)
	l.pending = append(l.pending[:0], l.pending[whole:]...)
	if err == nil {
		return nil
	}
	if n > whole {
		if terr := l.file.Truncate(l.size); terr != nil {
			// The torn piece stays: make it a line of its own, so
			// that it does not spoil the next one.
			l.size += int64(n - whole)
			l.pending = append([]byte{'\n'}, l.pending...)
		}
	}
	return lost(l.file.Name(), "write", err)
}

// lost is the problem state-lost of a file or folder.
func lost(path, what string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // which repeats the path
	}
	return problem.Newf(problem.StateLost, path, "%s: %w", what, err)
}
