package repository

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

const (
	// section is how much of a large file one goroutine stores. Sections
	// begin at multiples of it, so that the same file is cut the same way
	// in every run.
	section = 512 << 20

	// worthwhile is the least hole that is not read. Smaller ones are read
	// as zeros: cutting there would cost more than it saves.
	worthwhile = 1 << 20

	readSize = 256 << 10

	// most is the most that the holes of one file may have together. The
	// repository counts them in pieces of 8 MiB, and whoever reads the file
	// has the list of all pieces in memory: 0.9 GiB for 16 TiB, which is the
	// largest file of ext4. On XFS and btrfs anybody can make one of 8 EiB.
	most = 20 << 40
)

var buffers = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

// errShort means that a file ended before the size it had at the instant.
var errShort = errors.New("file is shorter than it was")

// content stores bytes [0,size) of a file and returns the object's ID.
func (s *storing) content(ctx context.Context, c *tree.Content, size int64, holes []tree.Range, n *Counters) (object.ID, error) {
	pieces := cut(size, holes)
	empty := int64(0)
	for _, p := range pieces {
		if p.hole {
			empty += p.Length
		}
	}
	if empty > most {
		return object.EmptyID, problem.Newf(problem.FileUnreadable, "", "the file has %d TiB of holes, and the repository can hold no more than %d TiB of one file", empty>>40, int64(most>>40))
	}
	ids := make([]object.ID, len(pieces))
	errs := make([]error, len(pieces))
	var wg sync.WaitGroup
	for i, p := range pieces {
		s.run(&wg, len(pieces) > 1, func() {
			if p.hole {
				ids[i], errs[i] = s.w.zeros.object(ctx, s.w.kopia, p.Length)
				n.Bytes.Add(p.Length)
			} else {
				ids[i], errs[i] = s.piece(ctx, c, p.Range, len(pieces), n)
			}
		})
	}
	wg.Wait()
	var err error
	for _, e := range errs {
		if err == nil || fatal(e) {
			err = e
		}
	}
	if err != nil {
		return object.EmptyID, err
	}
	id, err := s.w.kopia.ConcatenateObjects(ctx, ids, repo.ConcatenateOptions{Compressor: compressor})
	return id, stored(err)
}

type piece struct {
	tree.Range
	hole bool
}

// cut divides a file into holes that are worth skipping and sections to read.
// A file without either is one piece.
func cut(size int64, holes []tree.Range) []piece {
	var out []piece
	data := func(from, to int64) {
		for from < to {
			end := min(to, (from/section+1)*section)
			out = append(out, piece{Range: tree.Range{Offset: from, Length: end - from}})
			from = end
		}
	}
	at := int64(0)
	for _, h := range holes {
		if h.Length < worthwhile {
			continue
		}
		data(at, h.Offset)
		out = append(out, piece{Range: h, hole: true})
		at = h.Offset + h.Length
	}
	data(at, size)
	if len(out) == 0 {
		out = append(out, piece{})
	}
	return out
}

// piece stores one of several stretches of a file.
func (s *storing) piece(ctx context.Context, c *tree.Content, r tree.Range, of int, n *Counters) (object.ID, error) {
	o := object.WriterOptions{Compressor: compressor, MetadataCompressor: compressor}
	if r.Length > smallContent {
		o.Compressor = compressorLarge
	}
	if r.Length > 4*largestContent {
		select {
		case s.large <- struct{}{}:
			defer func() { <-s.large }()
		case <-ctx.Done():
			return object.EmptyID, context.Cause(ctx)
		}
		// One reads and splits, others compress and encrypt: as many as
		// it takes to keep all processors busy.
		o.AsyncWrites = max(1, cap(s.large)/of)
	}
	w := s.w.kopia.NewObjectWriter(ctx, o)
	defer w.Close()
	if err := s.copy(ctx, w, c, r, n); err != nil {
		return object.EmptyID, err
	}
	id, err := w.Result()
	return id, stored(err)
}

func (s *storing) copy(ctx context.Context, w io.Writer, c *tree.Content, r tree.Range, count *Counters) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for done := int64(0); done < r.Length; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.ReadAt((*buf)[:min(readSize, r.Length-done)], r.Offset+done)
		if n > 0 {
			if _, err := w.Write((*buf)[:n]); err != nil {
				return stored(err)
			}
			done += int64(n)
			count.ReadBytes.Add(int64(n))
			count.Bytes.Add(int64(n))
		}
		if err == io.EOF && done < r.Length {
			return errShort
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// A storeError is one of the repository: it ends the run. Everything else is
// an exception of one file.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

func stored(err error) error {
	if err == nil {
		return nil
	}
	return storeError{err}
}

func fatal(err error) bool {
	return errors.As(err, new(storeError)) || errors.Is(err, context.Canceled) || problem.Is(err, problem.SnapshotLost)
}

// zeros makes objects of nothing but zeros, in steps: 8 MiB of content once,
// then lists of lists, so that a hole of a terabyte costs a long list and no
// hashing.
type zeros struct {
	mu   sync.Mutex
	made map[int64]object.ID
}

const (
	zeroUnit = 8 << 20
	zeroStep = 64
)

func (z *zeros) object(ctx context.Context, k repo.RepositoryWriter, length int64) (object.ID, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.made == nil {
		z.made = map[int64]object.ID{}
	}
	return z.make(ctx, k, length)
}

func (z *zeros) make(ctx context.Context, k repo.RepositoryWriter, length int64) (object.ID, error) {
	if id, ok := z.made[length]; ok {
		return id, nil
	}
	var id object.ID
	var err error
	if length <= zeroUnit {
		id, err = z.plain(ctx, k, length)
	} else {
		id, err = z.list(ctx, k, length)
	}
	if err == nil && isStep(length) {
		z.made[length] = id
	}
	return id, err
}

func isStep(length int64) bool {
	for length > zeroUnit && length%zeroStep == 0 {
		length /= zeroStep
	}
	return length == zeroUnit
}

func (z *zeros) plain(ctx context.Context, k repo.RepositoryWriter, length int64) (object.ID, error) {
	w := k.NewObjectWriter(ctx, object.WriterOptions{Splitter: "FIXED-8M", Compressor: compressor, MetadataCompressor: compressor})
	defer w.Close()
	if _, err := w.Write(make([]byte, length)); err != nil {
		return object.EmptyID, stored(err)
	}
	id, err := w.Result()
	return id, stored(err)
}

// list joins the largest step below length as often as it fits, and the rest.
func (z *zeros) list(ctx context.Context, k repo.RepositoryWriter, length int64) (object.ID, error) {
	step := int64(zeroUnit)
	for step*zeroStep < length {
		step *= zeroStep
	}
	unit, err := z.make(ctx, k, step)
	if err != nil {
		return unit, err
	}
	var ids []object.ID
	for rest := length; rest > 0; {
		if rest >= step {
			ids = append(ids, unit)
			rest -= step
			continue
		}
		id, err := z.make(ctx, k, rest)
		if err != nil {
			return id, err
		}
		ids = append(ids, id)
		rest = 0
	}
	id, err := k.ConcatenateObjects(ctx, ids, repo.ConcatenateOptions{Compressor: compressor})
	return id, stored(err)
}
