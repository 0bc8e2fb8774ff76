package zfs

import (
	"context"
	"slices"
)

// kept is what the end of all snapshots that count for a limit would give back.
func (s *set) kept(ctx context.Context, l limit) (sum uint64) {
	for _, m := range s.sorted() {
		if m.needed() && l.covers(m.dataset) {
			sum += s.keeps(ctx, m)
		}
	}
	return sum
}

// keeps is what the end of one snapshot would give back, together with those of other
// sets of ours that come right before and after it. What two of them keep counts for
// neither by itself, and their processes see the same.
func (s *set) keeps(ctx context.Context, m *member) uint64 {
	first, last := s.beside(ctx, m)
	if first == last {
		st, err := s.p.stats(ctx, s.device, m.name(s.id))
		if err != nil {
			return 0
		}
		return st.Used
	}
	answer := make(chan uint64, 1)
	err := s.p.zfs.do(ctx, answerLimit, last, func() error {
		kept, err := s.device.Kept(first, last)
		answer <- kept
		return err
	})
	if err != nil {
		return 0 // one of them was destroyed since: the next look finds what there is then
	}
	return <-answer
}

// beside are the first and the last of our snapshots of a dataset that nobody else's is
// between. Both are the member's own where there is no other.
func (s *set) beside(ctx context.Context, m *member) (first, last string) {
	self := m.name(s.id)
	tags := tagsOf(s.p.dir, s.id, m.guid)
	if len(tags) == 0 {
		return self, self // many datasets have many snapshots: they are not listed for nothing
	}
	lines, err := s.p.list(ctx, 1, "zfs", "list", "-H", "-d", "1", "-t", "snapshot", "-o", "name", "-s", "createtxg", m.dataset)
	if err != nil {
		return self, self
	}
	var names []string
	for _, l := range lines {
		names = append(names, l[0])
	}
	return run(names, self, func(name string) bool {
		dataset, set, ok := cutSnapshot(name)
		if !ok || dataset != m.dataset || tags[set] == "" {
			return false
		}
		st, err := s.p.stats(ctx, s.device, name)
		return err == nil && st.Properties[property] == tags[set]
	})
}

// run is the first and the last of those around self, without a gap, that are ours.
func run(names []string, self string, ours func(string) bool) (first, last string) {
	at := slices.Index(names, self)
	if at < 0 {
		return self, self
	}
	from, to := at, at
	for from > 0 && ours(names[from-1]) {
		from--
	}
	for to < len(names)-1 && ours(names[to+1]) {
		to++
	}
	return names[from], names[to]
}

// tagsOf are the tags of the other sets that planned a snapshot of a dataset, and whose
// processes live, by their names.
func tagsOf(dir, self string, dataset uint64) map[string]string {
	tags := map[string]string{}
	sets, _ := records(dir)
	for _, set := range sets {
		if set == self {
			continue
		}
		r, err := readRecord(dir, set)
		if err != nil {
			continue // it has just ended, or is none
		}
		if r.planned(dataset) && r.lives() {
			tags[set] = r.tag()
		}
		r.close()
	}
	return tags
}

func (r *record) planned(dataset uint64) bool {
	for _, in := range r.members {
		if in.GUID == dataset {
			return true
		}
	}
	return false
}

// lives tells whether the process of a record that was read has its lock.
func (r *record) lives() bool {
	ok, _, err := r.own()
	return err == nil && !ok
}
