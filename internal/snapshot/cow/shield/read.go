package shield

import (
	"errors"
	"io"
	"syscall"

	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/file"
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
	return n, s.Err() // lost meanwhile: what was read live may be newer
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
		return s.cache.ReadAt(p, piece.at+offset-begin)
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
	l, err := s.live.open(f.in)
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

// verify is nil when nothing changed the file that was not let.
func (s *Shield) verify(f *guarded, fd int) error {
	if f.passed {
		return nil // its times may be anything
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	if changed(f.in, &st) && (s.o.Touched == nil || st.Size != f.in.Size || !s.o.Touched(f.in.Number)) {
		return errTorn
	}
	return nil
}

// changed tells whether the content may have changed. A ctime that moved alone
// is a new name, owner or mode.
func changed(in *index.Inode, st *syscall.Stat_t) bool {
	return st.Size != in.Size || !in.Mtime.Is(st.Mtim.Sec, st.Mtim.Nsec)
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
	l, err := s.live.open(f.in)
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
