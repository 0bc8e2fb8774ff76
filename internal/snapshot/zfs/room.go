package zfs

import (
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/ebb"
	"stillpoint/internal/sys/zfs"
)

// A bound is what bounds the room of datasets: their pool, or the quota of one that they
// lie in, for which snapshots count.
type bound struct {
	name  string // of the dataset that has it; of the first one, for the pool
	quota bool
}

// A limit is a bound as it is now.
type limit struct {
	bound
	all  uint64 // bytes
	left uint64
}

// limitsOf are those of a dataset itself. A refquota is none: what snapshots keep does
// not count for it.
func limitsOf(name string, st zfs.Stats) []limit {
	var all []limit
	if st.Quota > 0 {
		all = append(all, limit{bound{name, true}, st.Quota, st.Quota - min(st.Used, st.Quota)})
	}
	if name == poolOf(name) {
		all = append(all, limit{bound{name, false}, st.Used + st.Available, st.Available})
	}
	return all
}

// covers tells whether a dataset's room is bounded by it.
func (b bound) covers(dataset string) bool {
	return dataset == b.name || strings.HasPrefix(dataset, b.name+"/")
}

// around are the datasets that a dataset lies in, itself first.
func around(dataset string) (all []string) {
	for {
		all = append(all, dataset)
		i := strings.LastIndexByte(dataset, '/')
		if i < 0 {
			return all
		}
		dataset = dataset[:i]
	}
}

// How far is looked ahead. What programs have written shows only when it is on disk, by
// the transaction group: the first one of a burst is a fifth of what may follow while it
// is written (zfs_dirty_data_sync_percent). To give a snapshot back takes some groups, too.
const (
	lookBack  = 5 * time.Second // as long as a group is open (zfs_txg_timeout)
	lookAhead = 3               // times that long
)

// A gauge remembers how much was left of a limit lately.
type gauge struct {
	quota  uint64 // 0 for a pool
	lately ebb.Gauge
	turns  turns
}

// of is the gauge for a limit. One of a quota that was changed begins anew: that there
// is less of it does not mean that somebody writes so fast.
func (g *gauge) of(l limit) *gauge {
	if l.quota && g.quota != l.all {
		*g = gauge{quota: l.all, turns: g.turns}
	}
	return g
}

// fell notes what is left now, and tells by how much more that was lately.
func (g *gauge) fell(now time.Time, left uint64) uint64 { return g.lately.Fell(now, left, lookBack) }

// worthwhile tells whether it is to end snapshots that keep so much. Where that is
// little, somebody fills the room without them, and they stay until it is really short
// and would be much longer without; or nobody writes but a little, as to an archive that
// is nearly full.
func (l limit) worthwhile(kept uint64) bool {
	const least = 1 << 20
	floor := reserved(l.all)
	return kept >= least && (kept >= floor/8 || l.left < floor/2 && kept >= l.left/8)
}

// low tells whether a limit that fell so much lately is about to be short.
func (l limit) low(fell uint64) bool { return l.left < reserved(l.all)+lookAhead*fell }

// pressing tells whether of what low leaves a third has gone already, and half of the
// reserve: the rest is for the end of ours, which is not put off for that of another set.
func (l limit) pressing(fell uint64) bool {
	return l.left < reserved(l.all)/2+(lookAhead-1)*fell
}

// spent is the reason why snapshots were given up that kept so much.
func (l limit) spent(fell, kept uint64) error {
	what := "pool"
	if l.quota {
		what = "quota"
	}
	return problem.Newf(problem.PoolFull, l.name, "the %s has %d MiB left of %d, after it fell by %d within seconds, and %d are to stay free for the programs that write to it: the snapshot, which kept %d MiB with those of ours beside it, is given up",
		what, l.left>>20, l.all>>20, fell>>20, reserved(l.all)>>20, kept>>20)
}
