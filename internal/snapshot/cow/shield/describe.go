package shield

import "fmt"

// Describe says what is known of a file, for tests and for looking into a
// running agent.
func (s *Shield) Describe(number uint64) string {
	f := s.file(number)
	if f == nil {
		return "nothing to keep"
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	text := fmt.Sprintf("size %d, saved %d, whole %t, passed %t, data %v", f.in.Size, f.saved.Load(), f.whole.Load(), f.passed, f.data)
	f.pieces.Scan(func(begin int64, p piece) bool {
		text += fmt.Sprintf(", [%d,%d) at %d", begin, p.end, p.at)
		return true
	})
	return text
}
