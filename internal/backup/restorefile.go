package backup

import (
	"context"
	"errors"
	"io"
	"sync"

	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

const (
	// names in work before the next ones are read
	batch = 256

	// stretch is how much of a file one goroutine restores.
	stretch = 64 << 20

	// hole is the least hole that divides runs.
	hole = 1 << 20
)

// names restores everything in a directory.
func (s *restoring) names(ctx context.Context, m *tree.Maker, path string, dir *repository.Record, vol string) error {
	l, err := s.repo.Listing(ctx, dir)
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		var wg sync.WaitGroup
		err = nil
		for i := 0; i < batch && err == nil && ctx.Err() == nil; i++ {
			var rec repository.Record
			if rec, err = l.Next(); err == nil {
				s.do(&wg, func() { s.entry(ctx, m, path, &rec, vol) })
			}
		}
		// Or the directories above would keep all others from working.
		<-s.slot
		wg.Wait()
		s.slot <- struct{}{}
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// do calls f in a goroutine if there is room for one, else itself.
func (s *restoring) do(wg *sync.WaitGroup, f func()) {
	select {
	case s.slot <- struct{}{}:
		wg.Go(func() {
			defer func() { <-s.slot }()
			f()
		})
	default:
		f()
	}
}

// linkKey tells hard-linked files apart. The object is in it because a backup
// of live files may hold two that had the same inode one after the other.
type linkKey struct {
	volume string
	inode  uint64
	kind   tree.Type
	object string
}

// firstName is the first name of a hard-linked file.
type firstName struct {
	done  chan struct{}
	place tree.Place
	ok    bool
}

// leaf restores everything that is not a directory.
func (s *restoring) leaf(ctx context.Context, m *tree.Maker, path string, rec *repository.Record, vol string) {
	restore, count := s.content, &s.o.Progress.Files
	if rec.Type != tree.File {
		restore, count = s.other, &s.o.Progress.Others
	}
	there := false
	defer func() {
		if there || ctx.Err() == nil { // else it was cut short
			count.Add(1)
		}
	}()
	if rec.Links <= 1 || rec.Inode == 0 {
		there = restore(ctx, m, path, rec)
		return
	}
	first := &firstName{done: make(chan struct{})}
	if other, again := s.links.LoadOrStore(linkKey{vol, rec.Inode, rec.Type, rec.Object}, first); again {
		if !s.link(ctx, m, path, rec, other.(*firstName)) {
			there = restore(ctx, m, path, rec)
		}
		return
	}
	defer close(first.done)
	if there = restore(ctx, m, path, rec); !there {
		return
	}
	place, err := m.Place(rec.Name)
	if err != nil {
		s.fail(path, err)
		return
	}
	first.place, first.ok = place, true
}

// link gives what is there already another name. It returns false where that
// cannot be: then it has to be restored once more, and the lost link is an
// exception.
func (s *restoring) link(ctx context.Context, m *tree.Maker, path string, rec *repository.Record, first *firstName) bool {
	select {
	case <-first.done:
	case <-ctx.Done():
		return true
	}
	if !first.ok {
		return false
	}
	outcome, err := m.Link(rec.Entry, s.o.Overwrite, first.place)
	if err != nil {
		s.fail(path, err)
	}
	if errors.Is(err, tree.ErrNoLink) {
		return false
	}
	s.kept(path, outcome)
	return true
}

// content restores a file; it tells whether the file is there now as it was.
func (s *restoring) content(ctx context.Context, m *tree.Maker, path string, rec *repository.Record) bool {
	f, outcome, err := m.File(rec.Entry, s.o.Overwrite)
	if err != nil {
		s.fail(path, err)
		return false
	}
	if f == nil {
		s.o.Progress.Bytes.Add(rec.Size)
		s.kept(path, outcome)
		return outcome == tree.Same
	}
	if err := s.write(ctx, f, rec); err != nil {
		if aerr := f.Abort(); aerr != nil {
			err = errors.Join(err, aerr)
		}
		if ctx.Err() == nil {
			s.fail(path, err)
		}
		return false
	}
	unset, err := f.Commit()
	s.unset(path, unset, err)
	return err == nil
}

// write restores the data of a file; its holes are not written.
func (s *restoring) write(ctx context.Context, f *tree.FileMaker, rec *repository.Record) error {
	runs := runsOf(rec)
	if len(runs) == 0 {
		return nil
	}
	content, err := s.repo.Content(ctx, rec)
	if err != nil {
		return err
	}
	if len(runs) == 1 {
		return s.writeRun(ctx, f, content, runs[0])
	}
	errs := make([]error, len(runs))
	var wg sync.WaitGroup
	for i, r := range runs {
		s.do(&wg, func() {
			s.large <- struct{}{}
			defer func() { <-s.large }()
			errs[i] = s.writeRun(ctx, f, content, r)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// runsOf divides the data of a file into runs, for one goroutine each. A run may
// hold small holes: the piece of content around them is read only once then.
func runsOf(rec *repository.Record) (runs [][]tree.Range) {
	at := int64(0)
	for _, h := range append(rec.Holes[:len(rec.Holes):len(rec.Holes)], tree.Range{Offset: rec.Size}) {
		for at < h.Offset {
			p := tree.Range{Offset: at, Length: min(stretch, h.Offset-at)}
			at += p.Length
			if last := len(runs) - 1; last >= 0 && p.Offset-end(runs[last]) < hole && at-runs[last][0].Offset <= stretch {
				runs[last] = append(runs[last], p)
			} else {
				runs = append(runs, []tree.Range{p})
			}
		}
		at = h.Offset + h.Length
	}
	return runs
}

func end(run []tree.Range) int64 {
	last := run[len(run)-1]
	return last.Offset + last.Length
}

func (s *restoring) writeRun(ctx context.Context, f *tree.FileMaker, content *repository.Content, run []tree.Range) error {
	write := func(b []byte, at int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.WriteAt(b, at)
		s.o.Progress.Bytes.Add(int64(n))
		s.o.Progress.Wrote.Add(int64(n))
		return err
	}
	whole := tree.Range{Offset: run[0].Offset, Length: end(run) - run[0].Offset}
	return content.Copy(ctx, whole, func(b []byte, at int64) error {
		for _, p := range run {
			from, to := max(p.Offset, at), min(p.Offset+p.Length, at+int64(len(b)))
			if from >= to {
				continue
			}
			if err := write(b[from-at:to-at], from); err != nil {
				return err
			}
		}
		return nil
	})
}
