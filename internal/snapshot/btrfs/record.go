package btrfs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
)

// The record of a set says what the set is about to make, and then what it
// made. It is a file that gets its name only when it is complete, tagged,
// locked and on disk, so that there is no moment in which it could be taken
// for something else; the lock is held as long as the set's process lives.
// Everything else of the set is made after it and removed before it.
//
// Its lines are JSON, and are only ever appended to. What a power cut may take
// is the end; then the second rule of findSnapshot holds.
type record struct {
	name string
	f    *os.File // locked
	w    *os.File // to write, until the snapshots are on record: a file open for that keeps its file system from being made read-only
	fs   btrfs.UUID
	set  string

	mu      sync.Mutex
	size    int64
	members map[uint64]*intent
}

// An intent is what a record says about one snapshot.
type intent struct {
	ID         uint64     `json:"subvolume"`
	UUID       btrfs.UUID `json:"uuid"`              // of the subvolume
	Generation uint64     `json:"generation"`        // of the file system at the time
	Place      uint64     `json:"place,omitzero"`    // inode of the directory for the snapshot; zero until it is made
	Snapshot   btrfs.UUID `json:"snapshot,omitzero"` // zero until it is known
}

// A header is the first line of a record.
type header struct {
	Version int        `json:"stillpoint"`
	Set     string     `json:"set"`
	FS      btrfs.UUID `json:"filesystem"`
	Made    time.Time  `json:"made"`
}

const (
	recordVersion = 1
	recordSuffix  = ".set"
	recordLimit   = 64 << 20
	recordTag     = "trusted.stillpoint" // only root can set or see it
)

// validID tells whether a set may be called so: its name is that of files.
func validID(id string) bool {
	return id != "" && len(id) <= 32 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// tag is the value of the tag of a set's record.
func tag(set string, fs btrfs.UUID) string {
	return fmt.Sprintf("%d %s %s", recordVersion, set, fs)
}

// createRecord writes the record of a set into the folder, which is locked.
func createRecord(dir *folder, set string, fs btrfs.UUID, members []intent) (*record, error) {
	n, err := file.Open(fd(dir.dir), ".", file.Write|file.Unnamed)
	if err != nil {
		return nil, coded(folderName, err)
	}
	r := &record{name: set + recordSuffix, w: os.NewFile(uintptr(n), set+recordSuffix), fs: fs, set: set, members: map[uint64]*intent{}}
	if err := r.write(dir, members); err != nil {
		r.close()
		return nil, coded(folderName+"/"+r.name, err)
	}
	return r, nil
}

func (r *record) write(dir *folder, members []intent) error {
	lines := []any{header{recordVersion, r.set, r.fs, time.Now().UTC()}}
	for _, m := range members {
		r.members[m.ID] = &m
		lines = append(lines, m)
	}
	var err error
	if r.f, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd(r.w))); err != nil {
		return err
	}
	if err := file.Lock(fd(r.f)); err != nil {
		return err
	}
	if err := r.touch(); err != nil {
		return err
	}
	if err := r.append(lines...); err != nil {
		return err
	}
	if err := r.w.Sync(); err != nil {
		return err
	}
	err = file.Link(fd(r.w), fd(dir.dir), r.name)
	if errors.Is(err, syscall.EEXIST) {
		return problem.Newf(problem.Busy, r.set, "a set of this id exists")
	}
	return err
}

// touch sets the tag, which also makes sure that the running transaction has
// something to write.
func (r *record) touch() error {
	return file.SetXattr(fd(r.f), recordTag, []byte(tag(r.set, r.fs)))
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
	n, err := r.w.WriteAt(b.Bytes(), r.size)
	r.size += int64(n)
	return err
}

// placed notes the directories for the snapshots, before one is made.
func (r *record) placed(inodes map[uint64]uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []any
	for id, inode := range inodes {
		m := r.members[id]
		m.Place = inode
		lines = append(lines, *m)
	}
	return coded(folderName+"/"+r.name, r.append(lines...))
}

// made notes the UUIDs of snapshots, which is the last that is written. They
// need not reach the disk.
func (r *record) made(snapshots map[uint64]btrfs.UUID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []any
	for id, uuid := range snapshots {
		m := r.members[id]
		m.Snapshot = uuid
		lines = append(lines, *m)
	}
	err := r.append(lines...)
	if err == nil {
		err = r.w.Close()
		r.w = nil
	}
	return coded(folderName+"/"+r.name, err)
}

// intent is what is known about the snapshot of a subvolume.
func (r *record) intent(id uint64) (intent, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.members[id]
	if !ok {
		return intent{}, false
	}
	return *m, true
}

func (r *record) close() {
	for _, f := range []*os.File{r.w, r.f} {
		if f != nil {
			f.Close()
		}
	}
}

// readRecord opens the record of a set and makes sure that it is one. It does
// not lock it.
func readRecord(dir *folder, set string, fs btrfs.UUID) (*record, error) {
	name := set + recordSuffix
	n, err := file.Open(fd(dir.dir), name, file.Read|file.Final|file.Prompt)
	if errors.Is(err, syscall.ELOOP) {
		return nil, foreign(name, "is a symbolic link")
	}
	if err != nil {
		return nil, coded(folderName+"/"+name, err)
	}
	r := &record{name: name, f: os.NewFile(uintptr(n), name), fs: fs, set: set, members: map[uint64]*intent{}}
	if err := r.read(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *record) read() error {
	st, err := r.f.Stat()
	if err != nil {
		return coded(folderName+"/"+r.name, err)
	}
	var xattrs file.Xattrs
	value, err := xattrs.Get(fd(r.f), "", file.Itself, recordTag)
	switch {
	case errors.Is(err, syscall.ENODATA):
		return foreign(r.name, "has no tag of ours")
	case err != nil:
		return coded(folderName+"/"+r.name, err)
	case string(value) != tag(r.set, r.fs):
		return foreign(r.name, "has the tag "+strconv.Quote(string(value)))
	case !st.Mode().IsRegular(), st.Size() > recordLimit:
		return foreign(r.name, "is not a record")
	}
	return r.parse()
}

func (r *record) parse() error {
	lines := bufio.NewScanner(r.f)
	var head header
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Version != recordVersion || head.Set != r.set || head.FS != r.fs {
		return foreign(r.name, "does not begin as a record of ours does")
	}
	for lines.Scan() {
		var m intent
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.ID == 0 {
			break // the end that a power cut took
		}
		r.members[m.ID] = &m
	}
	return coded(folderName+"/"+r.name, lines.Err())
}

// own takes the lock of a record that was read. It is false when another
// process has it, and gone is true when that has removed the record.
func (r *record) own() (ok, gone bool, err error) {
	switch err := file.Lock(fd(r.f)); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, false, nil
	case err != nil:
		return false, false, coded(folderName+"/"+r.name, err)
	}
	st, err := file.Stat(fd(r.f), "", file.Itself)
	if err != nil {
		return false, false, coded(folderName+"/"+r.name, err)
	}
	return true, st.Links == 0, nil
}
