package shield

import (
	"errors"
	"syscall"

	"stillpoint/internal/sys/inode"
)

// Spare keeps no live file open any more that nobody reads: one that was
// deleted is freed then, if nothing else keeps it.
func (s *Shield) Spare() {
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	s.live.spare = 0
	for s.live.unused.Len() > 0 {
		s.live.drop(s.live.unused.Front().Value.(*live))
	}
}

// Check looks whether a file is still there, and gives it up as gone if it is
// not, unless all of it was saved.
func (s *Shield) Check(number uint64) {
	in := s.index.Inode(number)
	if in == nil || !in.IsRegular() || in.Size == 0 {
		return
	}
	if f, known := s.files.Load(number); known && f.(*guarded).whole.Load() {
		return
	}
	fd, err := inode.Place(s.live.mount, in.Handle)
	if err == nil {
		_ = syscall.Close(fd)
		return
	}
	if !errors.Is(err, syscall.ESTALE) {
		return // reading it will say
	}
	f := s.file(number)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.whole.Load() {
		s.fault(f, errGone)
	}
}
