package shield

import (
	"context"
	"errors"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/tidwall/btree"

	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/file"
)

var (
	errTorn = errors.New("it changed without an event")
	errGone = errors.New("it was deleted, and could not be kept")
)

// step is how much is saved between two looks at the time.
const step = 1 << 20

// most is how many stretches of data are told apart in one file; what comes
// after them counts as data.
const most = 10_000

// hole is the place of a piece that held nothing.
const hole = -1

// A guarded file is what is known of the content of one inode.
type guarded struct {
	in    *index.Inode
	whole atomic.Bool // nothing is to be saved any more
	late  atomic.Bool // it was let change without being saved

	mu     sync.RWMutex // held for writing while something is saved
	pieces btree.Map[int64, piece]
	saved  atomic.Int64 // bytes in pieces
	data   []stretch    // where data were at the instant; only once passed
	passed bool         // somebody was let change it
	err    error        // it cannot be read any more
}

// A piece is what was saved, by the offset where it begins.
type piece struct {
	end int64
	at  int64 // in the cache, or hole
}

// A stretch is a part of a file that holds data.
type stretch struct{ from, end int64 }

// save saves what is not saved of [offset, end).
func (f *guarded) save(ctx context.Context, c Cache, from int, offset, end int64) error {
	if !f.passed {
		data, err := stretches(from, f.in.Size)
		if err != nil {
			return err
		}
		f.data, f.passed = data, true
	}
	offset = max(0, offset/Page*Page)
	if end < 0 || end > f.in.Size {
		end = f.in.Size
	} else {
		end = min(f.in.Size, (end+Page-1)/Page*Page)
	}
	for offset < end {
		next, saved := f.next(offset, end)
		if !saved {
			if err := f.keep(ctx, c, from, offset, next); err != nil {
				return err
			}
		}
		offset = next
	}
	if f.saved.Load() == f.in.Size {
		f.whole.Store(true)
	}
	return nil
}

// next returns how far it goes on as at offset: saved or not.
func (f *guarded) next(offset, end int64) (until int64, saved bool) {
	if _, p, ok := f.holding(offset); ok {
		return min(p.end, end), true
	}
	f.pieces.Ascend(offset, func(begin int64, _ piece) bool {
		end = min(end, begin)
		return false
	})
	return end, false
}

// holding returns the piece that holds offset, and where it begins.
func (f *guarded) holding(offset int64) (begin int64, p piece, ok bool) {
	f.pieces.Descend(offset, func(b int64, q piece) bool {
		begin, p, ok = b, q, offset < q.end
		return false
	})
	return begin, p, ok
}

// keep saves [offset, end), of which nothing is saved, data by data and hole by
// hole.
func (f *guarded) keep(ctx context.Context, c Cache, from int, offset, end int64) error {
	for offset < end {
		until, data := f.stretch(offset, end)
		if !data {
			f.add(offset, until, hole)
			offset = until
			continue
		}
		for offset < until {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(until-offset, step)
			at, got, err := c.Save(ctx, from, offset, n)
			if err != nil {
				return err
			}
			if got < n {
				return errTorn // it is shorter than it was
			}
			f.add(offset, offset+n, at)
			offset += n
		}
	}
	return nil
}

// add adds a piece, to the one before it where they go together.
func (f *guarded) add(from, end, at int64) {
	f.saved.Add(end - from)
	if from > 0 {
		if begin, p, ok := f.holding(from - 1); ok && p.end == from &&
			(p.at == hole && at == hole || p.at != hole && at == p.at+from-begin) {
			f.pieces.Set(begin, piece{end, p.at})
			return
		}
	}
	f.pieces.Set(from, piece{end, at})
}

// stretch returns how far it goes on as at offset: data or hole.
func (f *guarded) stretch(offset, end int64) (until int64, data bool) {
	i := sort.Search(len(f.data), func(i int) bool { return f.data[i].end > offset })
	switch {
	case i == len(f.data):
		return end, false
	case offset < f.data[i].from:
		return min(f.data[i].from, end), false
	}
	return min(f.data[i].end, end), true
}

// stretches finds where a live file holds data. Only what looks like a hole is
// taken for one, so that a wrong answer costs room and never content.
func stretches(fd int, size int64) ([]stretch, error) {
	var all []stretch
	for at := int64(0); at < size; {
		from, err := file.NextData(fd, at)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		if from >= size {
			break
		}
		end := size
		if len(all) < most {
			if end, err = file.NextHole(fd, from); err != nil {
				return nil, err
			}
		}
		// Whole pages, as they are saved; a page with data in a part of
		// it holds data.
		from, end = from/Page*Page, min(size, (end+Page-1)/Page*Page)
		if n := len(all); n > 0 && from <= all[n-1].end {
			all[n-1].end = end
		} else {
			all = append(all, stretch{from, end})
		}
		at = end
	}
	return all, nil
}
