package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// most is how many bytes of WAL are kept in memory.
const most = 1 << 30

// notes are the files that a restore of a backup needs beside the copies.
type notes struct {
	data     string // directory
	uid, gid uint32 // its owner
	all      []writer.Note
}

func newNotes(data string) (*notes, error) {
	st, err := os.Stat(data)
	if err != nil {
		return nil, readFailed(err)
	}
	owner := st.Sys().(*syscall.Stat_t)
	return &notes{data: data, uid: owner.Uid, gid: owner.Gid}, nil
}

// add adds a file of the data directory.
func (n *notes) add(name string, content []byte) { n.put(filepath.Join(n.data, name), content) }

func (n *notes) put(path string, content []byte) {
	n.all = append(n.all, writer.Note{Path: path, Content: content, Mode: 0o600, UID: n.uid, GID: n.gid})
}

// control adds pg_control as it is. The server writes it at any time; it is
// read until it is twice the same.
func (n *notes) control() error {
	const name = "global/pg_control"
	var last []byte
	for range 100 {
		b, err := os.ReadFile(filepath.Join(n.data, name))
		if err != nil {
			return readFailed(err)
		}
		if bytes.Equal(b, last) {
			n.add(name, b)
			return nil
		}
		last = b
	}
	return problem.Newf(problem.WriterRetryable, filepath.Join(n.data, name), "it is being changed all the time")
}

// startOf finds the first WAL file in a backup_label.
var startOf = regexp.MustCompile(`(?m)^START WAL LOCATION: [0-9A-F]+/[0-9A-F]+ \(file ([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})\)$`)

// wal adds the WAL from the start of a backup to its stop, from the live
// directory to which pg_wal leads.
func (n *notes) wal(segment int64, label, stop string) error {
	timeline, first, err := startIn(label, segment)
	if err != nil {
		return err
	}
	last, err := segmentBefore(stop, segment)
	if err != nil {
		return err
	}
	if size := (last - first + 1) * segment; size > most {
		return problem.Newf(problem.WriterResources, "", "%d MiB of WAL were written during the backup, and at most %d are kept", size>>20, most>>20)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(n.data, "pg_wal"))
	if err != nil {
		return readFailed(err)
	}
	for s := first; s <= last; s++ {
		path := filepath.Join(dir, segmentName(timeline, s, segment))
		b, err := segmentAt(path, segment)
		if err != nil {
			return err
		}
		n.put(path, b)
	}
	return nil
}

func startIn(label string, segment int64) (timeline, first int64, err error) {
	m := startOf.FindStringSubmatch(label)
	if m == nil {
		return 0, 0, problem.Newf(problem.WriterFailed, "", "a backup_label without its start: %q", label)
	}
	timeline, _ = strconv.ParseInt(m[1], 16, 64)
	high, _ := strconv.ParseInt(m[2], 16, 64)
	low, _ := strconv.ParseInt(m[3], 16, 64)
	return timeline, high*perHigh(segment) + low, nil
}

// segmentBefore is the number of the WAL file with the byte before a position.
func segmentBefore(lsn string, segment int64) (int64, error) {
	h, l, _ := strings.Cut(lsn, "/")
	high, err := strconv.ParseInt(h, 16, 64)
	low, err2 := strconv.ParseInt(l, 16, 64)
	if err := errors.Join(err, err2); err != nil {
		return 0, problem.Newf(problem.WriterFailed, "", "no position in the WAL: %w", err)
	}
	return (high<<32 + low - 1) / segment, nil
}

// segmentName is how a WAL file is called (XLogFileName in xlog_internal.h).
func segmentName(timeline, number, segment int64) string {
	return fmt.Sprintf("%08X%08X%08X", timeline, number/perHigh(segment), number%perHigh(segment))
}

// perHigh is how many WAL files have the same middle part of their names.
func perHigh(segment int64) int64 { return 1 << 32 / segment }

// segmentAt reads a WAL file. The server removes one by giving it a later name
// and writing over it, so it must have its name still when it was read.
func segmentAt(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, removed(path)
	}
	if err != nil {
		return nil, readFailed(err)
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, readFailed(err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, readFailed(err)
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(st, now) {
		return nil, removed(path)
	}
	return b, nil
}

func removed(path string) error {
	return problem.Newf(problem.WriterRetryable, path, "the server has removed WAL that the backup needs")
}

func readFailed(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return problem.New(problem.WriterRights, "", err)
	}
	return problem.New(problem.WriterFailed, "", err)
}
