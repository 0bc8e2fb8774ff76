package shield

import "context"

// Progress is what SaveMore has come to.
type Progress int

// The ways it can be.
const (
	Done  Progress = iota // nothing of the file is left to be saved
	More                  // there is more
	Never                 // there is too much of it, or it cannot be saved
)

// SaveMore saves a little more of a file, ahead of anybody who wants to change
// it, unless that would take too large a share of the room that is left.
func (s *Shield) SaveMore(ctx context.Context, number uint64) Progress {
	if s.Whole(number) {
		return Done
	}
	f := s.file(number)
	f.mu.RLock()
	left := f.in.Size - f.saved.Load()
	offset := int64(0)
	for saved := true; saved && offset < f.in.Size; {
		var until int64
		if until, saved = f.next(offset, f.in.Size); saved {
			offset = until
		}
	}
	f.mu.RUnlock()
	if left > s.cache.Room()/4 {
		return Never
	}
	s.Save(ctx, number, -1, offset, offset+step)
	if s.Whole(number) {
		return Done
	}
	return More
}
