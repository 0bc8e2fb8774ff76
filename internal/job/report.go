package job

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// A Report is the last line of a log: how the job ended and what came of it.
type Report struct {
	Job     string       `json:"job"`  // Close sets it
	Kind    Kind         `json:"kind"` // Close sets it
	Status  Status       `json:"status"`
	Level   Level        `json:"level,omitempty"`   // of a backup
	Code    problem.Code `json:"code,omitempty"`    // the most specific one; empty when complete
	Text    string       `json:"text,omitempty"`    // why it failed, in words; a line for each of several errors
	Backup  string       `json:"backup,omitempty"`  // ID of the backup that was made, or restored
	Backups int64        `json:"backups,omitempty"` // how many were verified
	Resumed bool         `json:"resumed"`           // an interrupted job was picked up again
	Started time.Time    `json:"started"`           // Close sets it
	Ended   time.Time    `json:"ended"`             // Close sets it
	Took    Millis       `json:"took_ms"`           // Close sets it, from a clock that nobody sets back

	OneInstant bool   `json:"one_instant"` // everything captured is of one instant
	Skew       Millis `json:"skew_ms"`     // between the first and the last instant

	Volumes      []VolumeReport      `json:"volumes"`
	Applications []ApplicationReport `json:"applications"`
	Total        Counts              `json:"total"`
	Exceptions   []Exceptions        `json:"exceptions"` // most first
	LeftOut      []LeftOut           `json:"left_out"`   // most first

	UnusedExcludes []string `json:"unused_excludes"` // patterns that fit nothing

	Timeline []Span `json:"timeline"` // how long each step took, of a backup
}

// A VolumeReport says what became of one volume of a backup.
type VolumeReport struct {
	ID         string    `json:"id"`
	Mounts     []string  `json:"mounts"` // where it is mounted
	Paths      []string  `json:"paths"`  // what was selected of it
	Provider   string    `json:"provider"`
	Instant    time.Time `json:"instant,omitzero"` // zero without a snapshot
	OneInstant bool      `json:"one_instant"`      // all parts of it are of that instant
	Skew       Millis    `json:"skew_ms"`          // between its first and its last part
	Hold       Millis    `json:"hold_ms"`          // how long writes were suspended
	Took       Millis    `json:"took_ms"`          // for storing it
	Cache      *Cache    `json:"cache,omitempty"`  // where originals were kept, if anywhere
	Counts     Counts    `json:"counts"`
}

// A Cache is the file in which the originals were kept of what changed on a
// volume while its snapshot was read.
type Cache struct {
	Dir     string `json:"dir"`  // where it was, without a name
	Used    int64  `json:"used"` // the high-water mark
	Maximum int64  `json:"maximum"`
}

// An ApplicationReport says how one application came through a backup.
type ApplicationReport struct {
	ID       string       `json:"id"`
	Writer   string       `json:"writer"`
	Version  string       `json:"version,omitempty"`
	Paths    []string     `json:"paths"`             // its data
	State    string       `json:"state"`             // that it was in at the end
	Policy   string       `json:"policy"`            // for the case that it could not be brought to rest
	AtRest   bool         `json:"at_rest"`           // at the instant
	Treated  string       `json:"treated,omitempty"` // how its files are where it was not
	Attempts int          `json:"attempts"`          // to bring it to rest
	Rested   Millis       `json:"window_ms"`         // for how long it was at rest, or about to be
	Code     problem.Code `json:"code,omitempty"`    // why it was not
	Text     string       `json:"text,omitempty"`    // the same for people
}

// Counts are the numbers of a job or of one volume of it. Of a backup that was
// made they count what it holds, of all others what was done until the end.
type Counts struct {
	Files        int64 `json:"files"`
	Directories  int64 `json:"directories"`
	Others       int64 `json:"others"`        // symlinks, devices, pipes, sockets
	Bytes        int64 `json:"bytes"`         // contents of all files
	FilesReused  int64 `json:"files_reused"`  // unchanged: not read, or not written again
	BytesRead    int64 `json:"bytes_read"`    // contents that were read
	BytesStored  int64 `json:"bytes_stored"`  // by how much the repository grew
	BytesWritten int64 `json:"bytes_written"` // contents that a restore wrote
}

// Add adds d to c.
func (c *Counts) Add(d Counts) {
	c.Files += d.Files
	c.Directories += d.Directories
	c.Others += d.Others
	c.Bytes += d.Bytes
	c.FilesReused += d.FilesReused
	c.BytesRead += d.BytesRead
	c.BytesStored += d.BytesStored
	c.BytesWritten += d.BytesWritten
}

// Exceptions says how often a code befell single files or volumes.
type Exceptions struct {
	Code  problem.Code `json:"code"`
	Count int64        `json:"count"`
	Names []string     `json:"names"` // of the first of them that have one; the log has all
}

// ExceptionCount is how many there are in all.
func (r *Report) ExceptionCount() (n int64) {
	for _, x := range r.Exceptions {
		n += x.Count
	}
	return n
}

// LeftOut says how much was left out for one reason.
type LeftOut struct {
	Reason string       `json:"reason"`
	Code   problem.Code `json:"code,omitempty"` // empty where a rule, and no failure, left it out
	Count  int64        `json:"count"`
	Names  []string     `json:"names"` // the first of them; the log has all
}

// NamesKept is how many names a report keeps of exceptions with one code, and
// of what was left out for one reason.
const NamesKept = 20

// Settle sets Status, Code and Text by how the job ended; Exceptions must be
// there already. A nil error with exceptions is complete with exceptions.
func (r *Report) Settle(err error) {
	r.Status, r.Code, r.Text = Complete, "", ""
	if err == nil {
		if len(r.Exceptions) > 0 {
			r.Status, r.Code = CompleteWithExceptions, r.Exceptions[0].Code
		}
		return
	}
	r.Status, r.Code, r.Text = Failed, problem.CodeOf(err), problem.Text(err)
	// What a cancelled step complains of is no finding: whoever wraps an error
	// as cancelled knows that the job's own context ended.
	uncoded := r.Code == problem.Uncatalogued && errors.Is(err, context.Canceled)
	if uncoded || problem.Is(err, problem.Cancelled) {
		r.Status, r.Code = Cancelled, problem.Cancelled
	}
}

// What follows writes empty lists as such, times in UTC, and names that are no
// Unicode as bytes besides; and reads that again.

type (
	plainReport      Report // without methods
	plainCache       Cache
	plainVolume      VolumeReport
	plainLeftOut     LeftOut
	plainExceptions  Exceptions
	plainApplication ApplicationReport
)

type reportJSON struct {
	*plainReport
	UnusedBytes [][]byte `json:"unused_excludes_bytes,omitempty"`
}

type volumeJSON struct {
	*plainVolume
	MountsBytes [][]byte `json:"mounts_bytes,omitempty"`
	PathsBytes  [][]byte `json:"paths_bytes,omitempty"`
}

type cacheJSON struct {
	*plainCache
	DirBytes []byte `json:"dir_bytes,omitempty"`
}

type applicationJSON struct {
	*plainApplication
	PathsBytes [][]byte `json:"paths_bytes,omitempty"`
}

type exceptionsJSON struct {
	*plainExceptions
	NamesBytes [][]byte `json:"names_bytes,omitempty"`
}

type leftOutJSON struct {
	*plainLeftOut
	NamesBytes [][]byte `json:"names_bytes,omitempty"`
}

// MarshalJSON writes a report as it is in a log.
func (r Report) MarshalJSON() ([]byte, error) {
	r.Started, r.Ended = stamp(r.Started), stamp(r.Ended)
	r.Volumes, r.Exceptions, r.LeftOut = list(r.Volumes), list(r.Exceptions), list(r.LeftOut)
	r.UnusedExcludes, r.Applications, r.Timeline = list(r.UnusedExcludes), list(r.Applications), list(r.Timeline)
	return encode(reportJSON{(*plainReport)(&r), NotTexts(r.UnusedExcludes)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Report) UnmarshalJSON(b []byte) error {
	j := reportJSON{plainReport: (*plainReport)(r)}
	err := json.Unmarshal(b, &j)
	r.UnusedExcludes = exact(r.UnusedExcludes, j.UnusedBytes)
	return err
}

// MarshalJSON writes a volume as it is in a report.
func (v VolumeReport) MarshalJSON() ([]byte, error) {
	v.Instant, v.Mounts, v.Paths = stamp(v.Instant), list(v.Mounts), list(v.Paths)
	return encode(volumeJSON{(*plainVolume)(&v), NotTexts(v.Mounts), NotTexts(v.Paths)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *VolumeReport) UnmarshalJSON(b []byte) error {
	j := volumeJSON{plainVolume: (*plainVolume)(v)}
	err := json.Unmarshal(b, &j)
	v.Mounts, v.Paths = exact(v.Mounts, j.MountsBytes), exact(v.Paths, j.PathsBytes)
	return err
}

// MarshalJSON writes a cache file as it is in a report.
func (c Cache) MarshalJSON() ([]byte, error) {
	return encode(cacheJSON{(*plainCache)(&c), NotText(c.Dir)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Cache) UnmarshalJSON(b []byte) error {
	j := cacheJSON{plainCache: (*plainCache)(c)}
	err := json.Unmarshal(b, &j)
	if len(j.DirBytes) > 0 {
		c.Dir = string(j.DirBytes)
	}
	return err
}

// MarshalJSON writes an application as it is in a report.
func (a ApplicationReport) MarshalJSON() ([]byte, error) {
	a.Paths = list(a.Paths)
	return encode(applicationJSON{(*plainApplication)(&a), NotTexts(a.Paths)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (a *ApplicationReport) UnmarshalJSON(b []byte) error {
	j := applicationJSON{plainApplication: (*plainApplication)(a)}
	err := json.Unmarshal(b, &j)
	a.Paths = exact(a.Paths, j.PathsBytes)
	return err
}

// MarshalJSON writes exceptions as they are in a report.
func (x Exceptions) MarshalJSON() ([]byte, error) {
	x.Names = list(x.Names)
	return encode(exceptionsJSON{(*plainExceptions)(&x), NotTexts(x.Names)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (x *Exceptions) UnmarshalJSON(b []byte) error {
	j := exceptionsJSON{plainExceptions: (*plainExceptions)(x)}
	err := json.Unmarshal(b, &j)
	x.Names = exact(x.Names, j.NamesBytes)
	return err
}

// MarshalJSON writes what was left out as it is in a report.
func (l LeftOut) MarshalJSON() ([]byte, error) {
	l.Names = list(l.Names)
	return encode(leftOutJSON{(*plainLeftOut)(&l), NotTexts(l.Names)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (l *LeftOut) UnmarshalJSON(b []byte) error {
	j := leftOutJSON{plainLeftOut: (*plainLeftOut)(l)}
	err := json.Unmarshal(b, &j)
	l.Names = exact(l.Names, j.NamesBytes)
	return err
}

// list is never nil.
func list[T any](all []T) []T { return append([]T{}, all...) }

// A Tally counts exceptions and what was left out while a job runs, from any
// goroutine. The zero value is ready.
type Tally struct {
	mu         sync.Mutex
	exceptions map[problem.Code]*Exceptions
	leftOut    map[leftOutKey]*LeftOut
}

type leftOutKey struct {
	code   problem.Code
	reason string
}

// Exception counts one, of this name if it has one.
func (t *Tally) Exception(code problem.Code, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exceptions == nil {
		t.exceptions = map[problem.Code]*Exceptions{}
	}
	x := t.exceptions[code]
	if x == nil {
		x = &Exceptions{Code: code}
		t.exceptions[code] = x
	}
	x.Count++
	if name != "" && len(x.Names) < NamesKept {
		x.Names = append(x.Names, name)
	}
}

// LeftOut counts path among what was left out for this reason; code is empty
// where a rule, and no failure, left it out.
func (t *Tally) LeftOut(code problem.Code, reason, path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leftOut == nil {
		t.leftOut = map[leftOutKey]*LeftOut{}
	}
	l := t.leftOut[leftOutKey{code, reason}]
	if l == nil {
		l = &LeftOut{Reason: reason, Code: code}
		t.leftOut[leftOutKey{code, reason}] = l
	}
	l.Count++
	if len(l.Names) < NamesKept {
		l.Names = append(l.Names, path)
	}
}

// Fill puts the numbers into a report, most first.
func (t *Tally) Fill(r *Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Exceptions, r.LeftOut = nil, nil
	for _, x := range t.exceptions {
		x := *x
		x.Names = slices.Clone(x.Names)
		r.Exceptions = append(r.Exceptions, x)
	}
	slices.SortFunc(r.Exceptions, func(a, b Exceptions) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(string(a.Code), string(b.Code)))
	})
	for _, l := range t.leftOut {
		l := *l
		l.Names = slices.Clone(l.Names)
		r.LeftOut = append(r.LeftOut, l)
	}
	slices.SortFunc(r.LeftOut, func(a, b LeftOut) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Reason, b.Reason), strings.Compare(string(a.Code), string(b.Code)))
	})
}
