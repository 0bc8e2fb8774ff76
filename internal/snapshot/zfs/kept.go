package zfs

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/sys/file"
)

// kept is what the end of all snapshots that count for a limit would give back: alone, or
// where that is not worth it, together with those of other sets of ours beside them.
func (s *set) kept(ctx context.Context, l limit, g *gauge, fell uint64) (sum uint64) {
	var ms []*member
	for _, m := range s.sorted() {
		if m.needed() && l.covers(m.dataset) {
			ms = append(ms, m)
			sum += s.used(ctx, m.name(s.id))
		}
	}
	if l.worthwhile(sum) {
		return sum
	}
	rows := s.rowsNow(ctx)
	over, on := g.turns.take(time.Now(), s.worth(ctx, l, ms, rows), l.pressing(fell))
	if on {
		return sum // what is kept after it, the next look finds
	}
	return max(sum, s.together(ctx, ms, rows, over))
}

// used is what the end of one snapshot would give back. It is 0 where that cannot be
// asked: the next look finds what there is then.
func (s *set) used(ctx context.Context, snapshot string) uint64 {
	st, err := s.p.stats(ctx, s.device, snapshot)
	if err != nil {
		return 0
	}
	return st.Used
}

// worth are the other sets beside ours that are worth their end by themselves.
func (s *set) worth(ctx context.Context, l limit, ms []*member, rows map[string][]string) (sets []string) {
	alone := map[string]uint64{}
	for _, m := range ms {
		for _, name := range rows[m.dataset] {
			if _, set, _ := cutSnapshot(name); set != s.id {
				alone[set] += s.used(ctx, name)
			}
		}
	}
	for set, kept := range alone {
		if l.worthwhile(kept) {
			sets = append(sets, set)
		}
	}
	return sets
}

// together is what the end of snapshots would give back, if those of other sets beside
// them ended, too: what two keep counts for neither by itself, and their processes see the
// same. Those whose turn is over count as anybody else's: what they keep, too, stays.
func (s *set) together(ctx context.Context, ms []*member, rows map[string][]string, over map[string]bool) (sum uint64) {
	for _, m := range ms {
		row := without(rows[m.dataset], m.name(s.id), over)
		if len(row) < 2 {
			sum += s.used(ctx, m.name(s.id))
			continue
		}
		sum += s.keep(ctx, row[0], row[len(row)-1])
	}
	return sum
}

// keep is what two snapshots of a dataset keep, and all between them.
func (s *set) keep(ctx context.Context, first, last string) uint64 {
	answer := make(chan uint64, 1)
	err := s.p.zfs.do(ctx, answerLimit, last, func() error {
		kept, err := s.device.Kept(first, last)
		answer <- kept
		return err
	})
	if err != nil {
		s.rows = nil // one of them was destroyed since
		return 0
	}
	return <-answer
}

// rowsFor is how long is relied on what lies beside what: to find out takes a program,
// and a look at every record.
const rowsFor = 5 * time.Second

// rowsNow are, by dataset, our snapshot and those of other sets of ours around it, without
// anybody else's between them, in their order. There is none where it is alone.
func (s *set) rowsNow(ctx context.Context) map[string][]string {
	if s.rows == nil || time.Since(s.rowsAt) > rowsFor {
		s.rows = s.findRows(ctx)
		s.rowsAt = time.Now()
	}
	return s.rows
}

func (s *set) findRows(ctx context.Context) map[string][]string {
	rows := map[string][]string{}
	others := neighbours(s.p.dir, s.id)
	var shared []string
	for _, m := range s.sorted() {
		if m.needed() && slices.ContainsFunc(others, func(o neighbour) bool { return o.planned[m.guid] }) {
			shared = append(shared, m.dataset)
		}
	}
	for some := range slices.Chunk(shared, 100) { // names are 255 bytes at most
		args := []string{"list", "-H", "-d", "1", "-t", "snapshot", "-o", "name", "-s", "createtxg"}
		lines, err := s.p.list(ctx, 1, "zfs", append(args, some...)...)
		if err != nil {
			continue // one was renamed, for example; those of ours count alone
		}
		all := map[string][]string{}
		for _, l := range lines {
			dataset, _, _ := cutSnapshot(l[0])
			all[dataset] = append(all[dataset], l[0])
		}
		for _, dataset := range some {
			row := rowOf(all[dataset], dataset+"@"+prefix+s.id, func(name string) bool { return s.isNeighbour(ctx, others, name) })
			if len(row) > 1 {
				rows[dataset] = row
			}
		}
	}
	return rows
}

// isNeighbour tells whether a snapshot is of another set of ours, and not only called so.
func (s *set) isNeighbour(ctx context.Context, others []neighbour, name string) bool {
	_, set, ok := cutSnapshot(name)
	i := slices.IndexFunc(others, func(o neighbour) bool { return o.set == set })
	if !ok || i < 0 {
		return false
	}
	st, err := s.p.stats(ctx, s.device, name)
	return err == nil && st.Properties[property] == others[i].tag
}

// rowOf are those around self, without a gap, that are ours.
func rowOf(names []string, self string, ours func(string) bool) []string {
	at := slices.Index(names, self)
	if at < 0 {
		return nil
	}
	from, to := at, at+1
	for from > 0 && ours(names[from-1]) {
		from--
	}
	for to < len(names) && ours(names[to]) {
		to++
	}
	return names[from:to]
}

// without is what is left of a row around self, without sets. One that lies between two
// parts them, and rightly so: what both keep, it keeps as well.
func without(row []string, self string, sets map[string]bool) []string {
	return rowOf(row, self, func(name string) bool {
		_, set, _ := cutSnapshot(name)
		return !sets[set]
	})
}

// A neighbour is another set, whose process lives.
type neighbour struct {
	set, tag string
	planned  map[uint64]bool // guids of its datasets
}

func neighbours(dir, self string) (all []neighbour) {
	sets, _ := records(dir)
	for _, set := range sets {
		if set == self {
			continue
		}
		r, err := readRecord(dir, set)
		if err != nil {
			continue // it has just ended, or is none
		}
		if r.lives() {
			n := neighbour{set, r.tag(), map[uint64]bool{}}
			for _, in := range r.members {
				n.planned[in.GUID] = true
			}
			all = append(all, n)
		}
		r.close()
	}
	return all
}

// lives tells whether the process of a record that was read has its lock. Several may ask
// at a time; who looks for leftovers has it for a moment, and is no such process.
func (r *record) lives() bool {
	for range 3 {
		if !errors.Is(file.LockShared(int(r.f.Fd())), syscall.EWOULDBLOCK) {
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
	return true
}
