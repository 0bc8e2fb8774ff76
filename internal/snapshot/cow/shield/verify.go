package shield

import "stillpoint/internal/problem"

// Verify is for those who read a live file by themselves: it is nil when what
// they read, before Options.Flags were told of the file, was its content of the
// instant. What came by a way that shows no event is noticed now or was noticed
// when the first change was seen; the file is torn then, as for ReadAt.
func (s *Shield) Verify(number uint64) error {
	if err := s.Err(); err != nil {
		return err
	}
	f := s.file(number)
	if f == nil {
		return nil
	}
	if err := s.verifyFile(f); err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	if f.late.Load() {
		return problem.Newf(problem.FileTorn, "", lateText)
	}
	return nil
}

func (s *Shield) verifyFile(f *guarded) error {
	f.mu.RLock()
	err := f.err
	if err != nil || f.passed { // its times were right when it was let pass
		defer f.mu.RUnlock()
		return err
	}
	l, err := s.live.open(f.in)
	if err == nil {
		err = s.verify(f, l.fd)
		s.live.give(l)
	}
	f.mu.RUnlock()
	if err == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.fault(f, err)
	return f.err
}
