package job

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"stillpoint/internal/problem"
)

// An Exception is one name that is not in a backup, or came back from one, as it
// was; or that a rule left out.
type Exception struct {
	Path   string       `json:"path"` // live, any bytes
	Code   problem.Code `json:"code,omitempty"`
	Reason string       `json:"reason"`
	Step   Step         `json:"step"`
}

// The exceptions of a job are in a file of their own, beside its log: a million
// of them are no reason to read a million lines to see how the job ended, and
// nobody has them in memory.
const listSuffix = ".exceptions" + suffix

func listOf(dir, id string) string { return filepath.Join(dir, id+listSuffix) }

type plainException Exception // without methods

type exceptionJSON struct {
	*plainException
	PathBytes []byte `json:"path_bytes,omitempty"`
}

// MarshalJSON writes an exception as it is in the file.
func (x Exception) MarshalJSON() ([]byte, error) {
	return encode(exceptionJSON{(*plainException)(&x), NotText(x.Path)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (x *Exception) UnmarshalJSON(b []byte) error {
	j := exceptionJSON{plainException: (*plainException)(x)}
	err := json.Unmarshal(b, &j)
	if len(j.PathBytes) > 0 {
		x.Path = string(j.PathBytes)
	}
	return err
}

// Except writes an exception into the file beside the log.
func (l *Log) Except(x Exception) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.errClosed()
	}
	line, err := encode(x)
	if err != nil {
		return err
	}
	l.waiting = append(append(l.waiting, line...), '\n')
	return l.list()
}

// ForgetExceptions empties that file, for a job that begins again.
func (l *Log) ForgetExceptions() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = nil
	if l.others == nil {
		return nil
	}
	if err := l.others.Truncate(0); err != nil {
		return lost(l.others.Name(), "truncate", err)
	}
	return nil
}

// list brings what waits into the file, unless the log is held. What could not be
// written is tried again with the next line.
func (l *Log) list() error {
	if l.held || len(l.waiting) == 0 {
		return nil
	}
	if l.others == nil {
		path := listOf(filepath.Dir(l.file.Name()), l.header.ID)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if err != nil {
			return lost(path, "create", err)
		}
		l.others = f
	}
	n, err := l.others.Write(l.waiting)
	l.waiting = append(l.waiting[:0], l.waiting[n:]...)
	if err != nil {
		return lost(l.others.Name(), "write", err)
	}
	return nil
}

// SyncExceptions writes all exceptions and waits until they are on the disk. Without
// them nobody may be told that a job is complete with exceptions.
func (l *Log) SyncExceptions() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.errClosed()
	}
	return l.syncList()
}

func (l *Log) syncList() error {
	if err := l.list(); err != nil || l.others == nil {
		return err
	}
	if err := l.others.Sync(); err != nil {
		return lost(l.others.Name(), "sync", err)
	}
	return nil
}

func (l *Log) unlist() error {
	err := l.syncList()
	if l.others == nil {
		return err
	}
	if cerr := l.others.Close(); cerr != nil && err == nil {
		err = lost(l.others.Name(), "close", cerr)
	}
	return err
}

// EachException calls do for each exception of a job, in the order in which they
// came about, until it fails. A torn line, as a power cut leaves it, is passed over.
func EachException(dir, id string, do func(Exception) error) error {
	path := listOf(dir, id)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return lost(path, "open", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		var x Exception
		if err == nil && json.Unmarshal(line, &x) == nil {
			if err := do(x); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return lost(path, "read", err)
		}
	}
}
