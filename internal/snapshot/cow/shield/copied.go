package shield

import (
	"context"

	"github.com/tidwall/btree"

	"stillpoint/internal/snapshot/cow/index"
)

// A Copied is a whole file that was saved before the instant. Whoever knows
// that the file is the same at the instant can adopt it.
type Copied struct {
	size   int64
	data   []stretch
	pieces btree.Map[int64, piece]
}

// Copy saves all of a live file of the given size.
func Copy(ctx context.Context, c Cache, from int, size int64) (*Copied, error) {
	f := &guarded{in: &index.Inode{Size: size}}
	if err := f.save(ctx, c, from, 0, -1); err != nil {
		return nil, err
	}
	return &Copied{size, f.data, f.pieces}, nil
}

// Adopt takes what was copied for the content of a file at the instant. It is
// false when that cannot be, because the size is another one.
func (s *Shield) Adopt(number uint64, c *Copied) bool {
	f := s.file(number)
	if f == nil {
		return true // nothing to keep
	}
	s.announce(number)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.in.Size != c.size {
		return false
	}
	f.data, f.pieces, f.passed = c.data, c.pieces, true
	f.saved.Store(c.size)
	f.whole.Store(true)
	return true
}
