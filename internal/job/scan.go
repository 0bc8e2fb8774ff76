package job

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"stillpoint/internal/problem"
)

// A scanner reads the lines of one log and gathers what they mean together.
type scanner struct {
	id     string
	keep   bool             // all events, and not only the open intents
	show   func(Event) bool // those of them that are kept; nil for all
	header *Header
	report *Report
	events []Event
	open   []Event // intents, in their order
	torn   int
	lines  int
	last   time.Time // of the last line that told one
}

// scan reads r to its end. A torn line, as a power cut leaves it, is an event
// that says so, and not an error. In a log that is still being written, a last
// line without an end is only one on its way.
func (s *scanner) scan(r io.Reader, running bool) error {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := b.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		ended := err == nil
		if len(line) > 0 {
			s.lines++
			if err := s.take(line); err != nil && (ended || !running) {
				s.tear(line)
			}
		}
		if !ended {
			return nil
		}
	}
}

// take understands one line.
func (s *scanner) take(line []byte) error {
	var is struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(line, &is); err != nil {
		return err
	}
	switch is.Type {
	case lineJob:
		var h Header
		if err := json.Unmarshal(line, &h); err != nil {
			return err
		}
		s.header, s.last = &h, h.Started
	case lineEvent:
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		s.event(e)
	case lineReport:
		r := new(Report)
		if err := json.Unmarshal(line, r); err != nil {
			return err
		}
		s.report = r
	default:
		return fmt.Errorf("type %q", is.Type)
	}
	return nil
}

func (s *scanner) event(e Event) {
	s.last = e.Time
	if s.keep && (s.show == nil || s.show(e)) {
		s.events = append(s.events, e)
	}
	if e.Intent != "" {
		s.open = append(s.open, e)
	}
	if e.Done != "" {
		for i := range s.open {
			if s.open[i].Intent == e.Done {
				s.open = append(s.open[:i], s.open[i+1:]...)
				break
			}
		}
	}
}

func (s *scanner) tear(line []byte) {
	s.torn++
	s.event(Event{
		Time: s.last, Severity: Warning, Step: StepLog,
		Text: fmt.Sprintf("line %d of the log is torn, as a power cut or a full disk leaves it: %d bytes", s.lines, len(line)),
		Data: map[string]any{"line": json.Number(fmt.Sprint(s.lines)), "bytes": json.Number(fmt.Sprint(len(line)))},
	})
}

// summary is what the lines amount to, when the log has no living owner unless
// running says so.
func (s *scanner) summary(running bool) Summary {
	sum := Summary{Header: Header{ID: s.id}}
	if len(s.open) > 0 {
		sum.OpenIntents = s.open
	}
	if s.header != nil {
		sum.Header = *s.header
		sum.ID = s.id // the name of the file is what users find it by
	}
	switch r := s.report; {
	case r != nil:
		sum.Status, sum.Level, sum.Code, sum.Backup = r.Status, r.Level, r.Code, r.Backup
		sum.Ended, sum.Took = r.Ended, r.Took
		for _, e := range r.Exceptions {
			sum.Exceptions += e.Count
		}
	case running:
		sum.Status = Running
	default:
		sum.Status, sum.Code, sum.Ended = Died, problem.JobDied, s.last
	}
	return sum
}

// open reads a log to the point where it is clear whether its job runs, died or
// ended. It returns nil for a file without a first line, which is that of a
// job about to begin. With s.keep, all events are read; else only the ends of a
// log that has a report.
func open(path string, s *scanner) (*scanner, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, lost(path, "open", err)
	}
	defer f.Close()
	// In this order: a log that has a line had an owner, so once the lock is
	// found free, that owner has written all it ever will.
	info, err := f.Stat()
	if err != nil {
		return nil, false, lost(path, "look at", err)
	}
	if info.Size() == 0 {
		return nil, false, nil
	}
	running, err := locked(f)
	if err != nil {
		return nil, false, lost(path, "read", err)
	}
	if !s.keep && s.ends(f) {
		return s, false, nil
	}
	if !s.keep && running {
		// The first line may be on its way; then the id must do.
		_ = s.first(f)
		return s, true, nil
	}
	if err := s.scan(io.NewSectionReader(f, 0, 1<<62), running); err != nil {
		return nil, false, lost(path, "read", err)
	}
	return s, running, nil
}

// ends reads only the first line and a report at the end, and reports whether
// both were there: a list of a thousand jobs need not read a million lines.
func (s *scanner) ends(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	size := info.Size()
	for n := int64(16 << 10); ; n *= 8 {
		n = min(n, size)
		tail := make([]byte, n)
		if _, err := f.ReadAt(tail, size-n); err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if !bytes.HasSuffix(tail, []byte("\n")) {
			return false
		}
		i := bytes.LastIndexByte(tail[:n-1], '\n')
		if i < 0 && n < size {
			continue
		}
		if s.take(tail[i+1:]) != nil || s.report == nil {
			*s = scanner{id: s.id, keep: s.keep}
			return false
		}
		break
	}
	if s.first(f) != nil {
		*s = scanner{id: s.id, keep: s.keep}
		return false
	}
	return true
}

// first reads the first line.
func (s *scanner) first(f *os.File) error {
	line, err := bufio.NewReader(io.NewSectionReader(f, 0, 1<<62)).ReadBytes('\n')
	if err != nil {
		return lost(f.Name(), "read", err)
	}
	return s.take(line)
}
