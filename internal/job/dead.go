package job

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"stillpoint/internal/problem"
)

// CloseDead writes a report, failed with the code job-died, into each log
// whose process is gone, and returns these jobs with the intents they left
// open. Each dead job is returned once, however many processes ask. Jobs and an
// error may come together: then a log could not be closed, and its job will be
// returned again.
func CloseDead(dir string) ([]Summary, error) {
	return closeDead(dir, time.Now)
}

func closeDead(dir string, now func() time.Time) ([]Summary, error) {
	ids, err := names(dir)
	if err != nil {
		return nil, err
	}
	var (
		dead []Summary
		errs []error
	)
	for _, id := range ids {
		s, err := closeIfDead(filepath.Join(dir, id+suffix), id, now)
		if err != nil {
			errs = append(errs, err)
		}
		if s != nil {
			dead = append(dead, *s)
		}
	}
	return dead, errors.Join(errs...)
}

// closeIfDead returns nil for the log of a job that ended or still runs.
func closeIfDead(path, id string, now func() time.Time) (*Summary, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, lost(path, "open", err)
	}
	defer f.Close() // and with it the lock
	// Most logs have a report; they need no lock.
	s := &scanner{id: id}
	if s.ends(f) {
		return nil, nil
	}
	if ours, err := tryLock(f); err != nil || !ours {
		if err != nil {
			err = lost(path, "lock", err)
		}
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, lost(path, "look at", err)
	}
	if info.Size() == 0 {
		// Its process died before the first line, or is about to take
		// the lock; Create then notices and makes another.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, lost(path, "remove", err)
		}
		return nil, nil
	}
	s = &scanner{id: id}
	if err := s.scan(io.NewSectionReader(f, 0, 1<<62), false); err != nil {
		return nil, lost(path, "read", err)
	}
	if s.report != nil {
		return nil, nil
	}
	sum := s.summary(false)
	err = appendEnd(f, info.Size(), sum, now())
	if err == nil {
		sum.Status = Failed
	}
	return &sum, err
}

// appendEnd closes the log of a dead job: an event that says so, and a report.
func appendEnd(f *os.File, size int64, sum Summary, now time.Time) error {
	text := fmt.Sprintf("process %d ended without closing this log; its last line is of %s", sum.PID, sum.Ended.Format(time.RFC3339))
	if boot := bootID(); boot != "" && sum.BootID != "" && boot != sum.BootID {
		text += "; the host was started anew since"
	}
	r := Report{Job: sum.ID, Kind: sum.Kind, Status: Failed, Code: problem.JobDied, Text: text, Started: sum.Started, Ended: sum.Ended}
	r.Took = Millis(max(0, sum.Ended.Sub(sum.Started)))
	event, err := encodeLine(lineEvent, Event{Time: now, Severity: Error, Step: StepLog, Code: problem.JobDied, Text: text})
	if err != nil {
		return err
	}
	report, err := encodeLine(lineReport, r)
	if err != nil {
		return err
	}
	lines := append(event, report...)
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, size-1); err != nil {
		return lost(f.Name(), "read", err)
	}
	if last[0] != '\n' {
		lines = append([]byte{'\n'}, lines...) // end the torn line
	}
	_, err = f.Write(lines)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		// Nothing of it may stay, or the next attempt would find a torn
		// line that no power cut made.
		return lost(f.Name(), "write", errors.Join(err, f.Truncate(size)))
	}
	return nil
}

// Keep is how many logs Prune leaves by default.
const Keep = 1000

// Prune removes the oldest logs, so that the newest keep stay. The log of a job
// that runs, or that died and was not closed yet, is never removed. It returns
// how many it removed.
func Prune(dir string, keep int) (int, error) {
	jobs, err := List(dir)
	errs := []error{err}
	removed := 0
	for i, j := range jobs {
		if i < keep || j.Status == Running || j.Status == Died {
			continue
		}
		path := filepath.Join(dir, j.ID+suffix)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, lost(path, "remove", err))
			continue
		}
		if err := os.Remove(listOf(dir, j.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, lost(path, "remove", err))
		}
		removed++
	}
	return removed, errors.Join(errs...)
}
