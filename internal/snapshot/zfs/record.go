package zfs

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// The record of a set says what the set is about to make, and then what it made. It is
// a file that gets its name only when it is complete, locked and on disk; the lock is
// held as long as the set's process lives. Snapshots are made after it and destroyed
// before it.
//
// Its lines are JSON, and are only ever appended to. What a power cut may take is the
// end: the guids of the snapshots.
type record struct {
	dir, set, token string
	f               *os.File // locked

	mu      sync.Mutex
	size    int64
	members map[string]*intent // by the dataset's name at that time
}

// A header is the first line of a record.
type header struct {
	Version int       `json:"stillpoint"`
	Set     string    `json:"set"`
	Token   string    `json:"token"`
	Made    time.Time `json:"made"`
}

// An intent is what a record says about one snapshot.
type intent struct {
	Pool     uint64 `json:"pool"` // guid
	Dataset  string `json:"dataset"`
	GUID     uint64 `json:"guid"`              // of the dataset
	Snapshot uint64 `json:"snapshot,omitzero"` // guid; zero until it is known
}

const (
	recordVersion = 1
	recordSuffix  = ".set"
	partSuffix    = ".part"
	recordLimit   = 64 << 20
	property      = "stillpoint:set" // of the snapshots
	prefix        = "stillpoint-"    // of their names
)

// tag is the value of the property.
func (r *record) tag() string { return r.set + " " + r.token }

// validID tells whether a set may be called so.
func validID(id string) bool {
	return id != "" && len(id) <= 32 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// createRecord writes the record of a set into the folder.
func createRecord(dir, set string, members []intent) (*record, error) {
	r := &record{dir: dir, set: set, token: rand.Text(), members: map[string]*intent{}}
	if dir == "" {
		return nil, problem.Newf(problem.StateLost, set, "there is no folder for the record of the set")
	}
	if err := r.create(members); err != nil {
		r.close()
		if errors.Is(err, fs.ErrExist) {
			return nil, problem.Newf(problem.Busy, set, "a set of this id exists")
		}
		return nil, problem.New(problem.StateLost, dir, err)
	}
	return r, nil
}

func (r *record) path() string { return filepath.Join(r.dir, r.set+recordSuffix) }

func (r *record) create(members []intent) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	part := filepath.Join(r.dir, r.set+"-"+r.token+partSuffix)
	var err error
	if r.f, err = os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	defer os.Remove(part)
	if err := file.Lock(int(r.f.Fd())); err != nil {
		return err
	}
	lines := []any{header{recordVersion, r.set, r.token, time.Now().UTC()}}
	for _, m := range members {
		r.members[m.Dataset] = &m
		lines = append(lines, m)
	}
	if err := r.append(lines...); err != nil {
		return err
	}
	if err := r.f.Sync(); err != nil {
		return err
	}
	if err := os.Link(part, r.path()); err != nil { // Rename would replace another one's
		return err
	}
	if err := syncDir(r.dir); err != nil {
		return errors.Join(err, os.Remove(r.path()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// append writes lines in one go: a kill cannot part them.
func (r *record) append(lines ...any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return err
		}
	}
	n, err := r.f.WriteAt(b.Bytes(), r.size)
	r.size += int64(n)
	return err
}

// made notes the snapshots that were made, by dataset. This need not reach the disk.
func (r *record) made(snapshots map[string]intent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []any
	for name, in := range snapshots {
		r.members[name] = &in
		lines = append(lines, in)
	}
	if err := r.append(lines...); err != nil {
		return problem.New(problem.StateLost, r.path(), err)
	}
	return nil
}

func (r *record) intent(dataset string) intent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.members[dataset]
}

func (r *record) remove() error {
	if err := os.Remove(r.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return problem.New(problem.StateLost, r.path(), err)
	}
	return nil
}

func (r *record) close() {
	if r.f != nil {
		r.f.Close()
	}
}

// readRecord opens the record of a set. It does not lock it.
func readRecord(dir, set string) (*record, error) {
	r := &record{dir: dir, set: set, members: map[string]*intent{}}
	var err error
	if r.f, err = os.OpenFile(r.path(), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err != nil {
		if errors.Is(err, syscall.ELOOP) {
			return nil, foreign(r.path(), "is a symbolic link")
		}
		return nil, problem.New(problem.StateLost, r.path(), err)
	}
	if err := r.parse(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *record) parse() error {
	st, err := r.f.Stat()
	switch {
	case err != nil:
		return problem.New(problem.StateLost, r.path(), err)
	case !st.Mode().IsRegular(), st.Size() > recordLimit:
		return foreign(r.path(), "is not a record")
	}
	lines := bufio.NewScanner(r.f)
	var head header
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Version != recordVersion || head.Set != r.set || head.Token == "" {
		return foreign(r.path(), "does not begin as a record of ours does")
	}
	r.token, r.size = head.Token, st.Size()
	for lines.Scan() {
		var m intent
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.Dataset == "" || m.GUID == 0 {
			break // the end that a power cut took
		}
		r.members[m.Dataset] = &m
	}
	if err := lines.Err(); err != nil {
		return problem.New(problem.StateLost, r.path(), err)
	}
	return nil
}

// ownWithin is own, and waits for one that has the lock for a moment to look who lives.
func (r *record) ownWithin(d time.Duration) (ok, gone bool, err error) {
	for end := time.Now().Add(d); ; time.Sleep(d / 10) {
		ok, gone, err = r.own()
		if ok || err != nil || !time.Now().Before(end) {
			return ok, gone, err
		}
	}
}

// own takes the lock of a record that was read. It is false when another process has
// it, and gone is true when that has removed the record.
func (r *record) own() (ok, gone bool, err error) {
	switch err := file.Lock(int(r.f.Fd())); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, false, nil
	case err != nil:
		return false, false, problem.New(problem.StateLost, r.path(), err)
	}
	st, err := r.f.Stat()
	if err != nil {
		return false, false, problem.New(problem.StateLost, r.path(), err)
	}
	return true, st.Sys().(*syscall.Stat_t).Nlink == 0, nil
}
