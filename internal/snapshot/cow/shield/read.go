package shield

import (
	"errors"
	"io"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/inode"
)

// ReadAt reads what the file held at the instant. It returns io.EOF at the
// end, and a problem with the code file-torn or file-gone when the file cannot
// be read any more.
func (s *Shield) ReadAt(number uint64, p []byte, offset int64) (int, error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	f := s.file(number)
	if f == nil || offset >= f.in.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), f.in.Size-offset)]
	n := 0
	for n < len(p) {
		got, err := s.readSome(f, p[n:], offset+int64(n))
		if err != nil {
			return 0, err
		}
		n += got
	}
	// Lost or given up meanwhile, what was read live may be newer.
	if err := s.Err(); err != nil {
		return 0, err
	}
	if f.late.Load() {
		return 0, problem.Newf(problem.FileTorn, "", lateText)
	}
	return n, nil
}

// readSome reads from one place: the cache, a hole, or the live file.
func (s *Shield) readSome(f *guarded, p []byte, offset int64) (int, error) {
	f.mu.RLock()
	if f.err != nil {
		defer f.mu.RUnlock()
		return 0, f.err
	}
	until, saved := f.next(offset, offset+int64(len(p)))
	p = p[:until-offset]
	if saved {
		begin, piece, _ := f.holding(offset)
		f.mu.RUnlock() // what is saved stays as it is
		if piece.at == hole {
			clear(p)
			return len(p), nil
		}
		n, err := s.cache.ReadAt(p, piece.at+offset-begin)
		if err == nil && n < len(p) {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	err := s.readLive(f, p, offset)
	f.mu.RUnlock()
	if err == nil {
		return len(p), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.fault(f, err)
	return 0, f.err
}

// readLive fills p from the live file. Its lock is held for reading.
func (s *Shield) readLive(f *guarded, p []byte, offset int64) error {
	l, err := s.open(f.in)
	if err != nil {
		return err
	}
	defer s.live.give(l)
	for n := 0; n < len(p); {
		got, err := file.ReadAt(l.fd, p[n:], offset+int64(n))
		if err != nil {
			return err
		}
		if got == 0 {
			return errTorn
		}
		n += got
	}
	return s.verify(f, l.fd)
}

// verify is nil when nothing changed the file that was not let. What was set by
// chmod, utimes, link and the like moves the times, too, and is announced; a
// moment may pass between the one and the other.
func (s *Shield) verify(f *guarded, fd int) error {
	if f.passed {
		return nil // its times may be anything
	}
	for try := 0; ; try++ {
		var st syscall.Stat_t
		if err := syscall.Fstat(fd, &st); err != nil {
			return err
		}
		if f.in.Mtime.Is(st.Mtim.Unix()) && f.in.Ctime.Is(st.Ctim.Unix()) && st.Size == f.in.Size {
			return nil
		}
		touched := s.o.Touched != nil && s.o.Touched(f.in.Number, inode.TimeOf(st.Mtim.Unix()))
		switch {
		case st.Size != f.in.Size:
			return errTorn
		case touched:
			return nil
		case try > 0:
			return errTorn
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// NextData returns where the first data at or after offset begins, and
// NextHole the first hole; both fail with ENXIO at and after the end.
func (s *Shield) NextData(number uint64, offset int64) (int64, error) {
	return s.seek(number, offset, true)
}

// NextHole is described at NextData.
func (s *Shield) NextHole(number uint64, offset int64) (int64, error) {
	return s.seek(number, offset, false)
}

func (s *Shield) seek(number uint64, offset int64, data bool) (int64, error) {
	f := s.file(number)
	if f == nil || offset < 0 || offset >= f.in.Size {
		return 0, syscall.ENXIO
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.passed {
		return f.seek(offset, data)
	}
	l, err := s.open(f.in)
	if err != nil {
		return 0, err
	}
	defer s.live.give(l)
	next := file.NextHole
	if data {
		next = file.NextData
	}
	at, err := next(l.fd, offset)
	if verr := s.verify(f, l.fd); verr != nil {
		return 0, verr // reading it will say so, too
	}
	if err == nil && at >= f.in.Size {
		if data {
			return 0, syscall.ENXIO
		}
		at = f.in.Size
	}
	if errors.Is(err, syscall.ENXIO) {
		err = syscall.ENXIO
	}
	return at, err
}

func (f *guarded) seek(offset int64, data bool) (int64, error) {
	for offset < f.in.Size {
		until, isData := f.stretch(offset, f.in.Size)
		if isData == data {
			return offset, nil
		}
		offset = until
	}
	if data {
		return 0, syscall.ENXIO
	}
	return f.in.Size, nil
}
