package repository

import (
	"context"
	"maps"
	"slices"
	"sync"

	kopiafs "github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/tree"
)

// spill is how much of a listing is kept in memory before it is streamed into
// the repository: some 50,000 names.
const spill = 16 << 20

// A folder is the listing of one directory while it is being made. Records
// come in order; a checkpoint may ask at any time for what there is so far.
type folder struct {
	mu    sync.Mutex
	self  Record
	buf   []byte // records as JSON, separated by commas
	out   object.Writer
	head  []byte // the first part of a listing that is streamed, for checkpoints
	sum   kopiafs.DirectorySummary
	batch []*Record            // the names in work, in order; nil while they are not done
	open  map[*folder]struct{} // subdirectories in work
	named int
}

func (f *folder) enter(child *folder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[*folder]struct{}{}
	}
	f.open[child] = struct{}{}
}

func (f *folder) leave(child *folder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, child)
}

// failed notes that something in this directory is not stored as it was.
func (f *folder) failed(path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum.IgnoredErrorCount++
	if len(f.sum.FailedEntries) < 10 { // as many as kopia keeps
		f.sum.FailedEntries = append(f.sum.FailedEntries, &kopiafs.EntryWithError{EntryPath: path, Error: err.Error()})
	}
}

// begin starts work on the next n names.
func (f *folder) begin(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batch = make([]*Record, n)
}

// done is told the record of one of them.
func (f *folder) done(i int, r *Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batch[i] = r
}

// usual is how long most records are as JSON.
const usual = 256

// end appends the records of the names that begin began.
func (f *folder) end(ctx context.Context, w *Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = slices.Grow(f.buf, len(f.batch)*usual)
	for _, r := range f.batch {
		if r == nil {
			continue
		}
		if err := f.add(ctx, w, r); err != nil {
			return err
		}
	}
	f.batch = nil
	return nil
}

// add appends one record. f.mu is held.
func (f *folder) add(ctx context.Context, w *Writer, r *Record) error {
	if err := f.append(r); err != nil {
		return err
	}
	if len(f.buf) < spill {
		return nil
	}
	if f.out == nil {
		f.out = w.listingWriter(ctx)
		f.head = f.buf
		if _, err := f.out.Write([]byte(listingHead)); err != nil {
			return stored(err)
		}
	}
	_, err := f.out.Write(f.buf)
	f.buf = make([]byte, 0, spill+4<<10)
	return stored(err)
}

func (f *folder) append(r *Record) (err error) {
	if f.named > 0 {
		f.buf = append(f.buf, ',')
	}
	f.named++
	f.buf, err = r.appendJSON(f.buf)
	count(&f.sum, r)
	return err
}

// count adds a record to the summary as kopia does
// (snapshot/snapshotfs/dir_manifest_builder.go), but what kopia takes for an
// empty file because it has no word for it counts with the symlinks: files are
// regular files.
func count(s *kopiafs.DirectorySummary, r *Record) {
	if t := kopiafs.UTCTimestamp(r.mtime().UnixNano()); t.After(s.MaxModTime) {
		s.MaxModTime = t
	}
	switch {
	case r.Type == tree.Directory && r.Summary != nil:
		s.TotalFileCount += r.Summary.TotalFileCount
		s.TotalFileSize += r.Summary.TotalFileSize
		s.TotalDirCount += r.Summary.TotalDirCount
		s.TotalSymlinkCount += r.Summary.TotalSymlinkCount
		s.IgnoredErrorCount += r.Summary.IgnoredErrorCount
		s.FailedEntries = append(s.FailedEntries, r.Summary.FailedEntries...)
		s.FailedEntries = s.FailedEntries[:min(10, len(s.FailedEntries))]
		if r.Summary.MaxModTime.After(s.MaxModTime) {
			s.MaxModTime = r.Summary.MaxModTime
		}
	case r.Type == tree.File:
		s.TotalFileCount++
		s.TotalFileSize += r.Size
	case r.Type != tree.Directory:
		s.TotalSymlinkCount++
	}
}

const listingHead = `{"stream":"` + directoryStream + `","entries":[`

// finish writes the listing and completes the directory's own record.
func (f *folder) finish(ctx context.Context, w *Writer) (Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.out
	f.out = nil
	if out != nil {
		defer out.Close()
		return endListing(out, f.self, f.buf, f.sum, "")
	}
	out = w.listingWriter(ctx)
	defer out.Close()
	if _, err := out.Write([]byte(listingHead)); err != nil {
		return f.self, stored(err)
	}
	return endListing(out, f.self, f.buf, f.sum, "")
}

// drop gives up a listing that was not finished.
func (f *folder) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out != nil {
		f.out.Close()
		f.out = nil
	}
}

// endListing writes the last records and the summary, and gives the
// directory's record its object.
func endListing(out object.Writer, self Record, records []byte, sum kopiafs.DirectorySummary, incomplete string) (Record, error) {
	sum.TotalDirCount++
	sum.IncompleteReason = incomplete
	if sum.MaxModTime == 0 {
		sum.MaxModTime = kopiafs.UTCTimestamp(self.mtime().UnixNano())
	}
	j, err := summaryJSON(&sum)
	if err != nil {
		return self, err
	}
	for _, b := range [][]byte{records, []byte(`],"summary":`), j, []byte("}")} {
		if _, err := out.Write(b); err != nil {
			return self, stored(err)
		}
	}
	id, err := out.Result()
	if err != nil {
		return self, stored(err)
	}
	self.Object, self.Summary = id.String(), &sum
	return self, nil
}

// partial writes a listing of what there is so far. What is in work comes
// after all that is in the listing, so the order holds.
func (f *folder) partial(ctx context.Context, w *Writer) (Record, error) {
	f.mu.Lock()
	snap := folder{self: f.self, sum: f.sum.Clone(), named: f.named}
	snap.buf = append(snap.buf, f.buf...)
	if f.head != nil {
		snap.buf = append([]byte(nil), f.head...)
	}
	var more []*Record
	for _, r := range f.batch {
		if r != nil {
			more = append(more, r)
		}
	}
	open := slices.Collect(maps.Keys(f.open))
	f.mu.Unlock()

	for _, c := range open {
		r, err := c.partial(ctx, w)
		if err != nil {
			return r, err
		}
		more = append(more, &r)
	}
	slices.SortFunc(more, func(a, b *Record) int {
		return order(a.kopiaType() == "d", a.stored, b.kopiaType() == "d", b.stored)
	})
	for _, r := range more {
		if err := snap.append(r); err != nil {
			return snap.self, err
		}
	}
	out := w.listingWriter(ctx)
	defer out.Close()
	if _, err := out.Write([]byte(listingHead)); err != nil {
		return snap.self, stored(err)
	}
	return endListing(out, snap.self, snap.buf, snap.sum, "checkpoint")
}

// listingWriter writes a directory object. The prefix k keeps listings in
// packs of their own, as kopia does.
func (w *Writer) listingWriter(ctx context.Context) object.Writer {
	return w.kopia.NewObjectWriter(ctx, object.WriterOptions{
		Prefix:             "k",
		Compressor:         compressor,
		MetadataCompressor: compressor,
	})
}
