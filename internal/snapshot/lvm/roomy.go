package lvm

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/ebb"
	"stillpoint/internal/sys/dm"
)

// left is what a pool has free for data and for metadata, in bytes.
func (p pool) left() (data, meta uint64) {
	return (p.all - p.used) * p.block, (p.meta - p.metaUsed) * metaBlock
}

// reserve is what is to stay free.
func (p pool) reserve() (data, meta uint64) {
	return min(p.all*p.block/100*dataReserve, dataReserveMost), min(p.meta*metaBlock/100*metaReserve, metaReserveMost)
}

// roomy is nil while there is so many times the reserve in a pool.
func (p pool) roomy(name string, times uint64) error { return p.has(name, times, 0, 0) }

// has is nil while there is so many times the reserve in a pool, and besides as much as it
// will soon lose.
func (p pool) has(name string, times, fell, metaFell uint64) error {
	if p.trouble != "" {
		return problem.Newf(problem.PoolFull, name, "no snapshot is taken in this thin pool: %s", p.trouble)
	}
	data, meta := p.left()
	need, needMeta := p.reserve()
	if need *= times; data < need+fell {
		return problem.Newf(problem.PoolFull, name, "the thin pool has %d MiB left of %d%s, and %d are to stay free for the volumes in it",
			data>>20, p.all*p.block>>20, lately(fell, 20, "MiB"), need>>20)
	}
	if needMeta *= times; meta < needMeta+metaFell {
		return problem.Newf(problem.PoolFull, name, "the metadata of the thin pool have %d KiB left of %d%s, and %d are to stay free for the volumes in it",
			meta>>10, p.meta*metaBlock>>10, lately(metaFell, 10, "KiB"), needMeta>>10)
	}
	return nil
}

// leaf is how many blocks a node of a thin volume's tree leads to at least. It has room for
// twice as many (16 bytes each, of 4096), and is divided in two when it is full.
const leaf = 126

// mapped is how many sectors a thin volume has in its pool, the first word of what it says
// of itself; "-" or "Fail" where the pool has failed, which says so, too.
func mapped(c *dm.Control, n dm.Number) (uint64, error) {
	state, err := c.State(n)
	if err != nil {
		return 0, err
	}
	if len(state) != 1 {
		return 0, fmt.Errorf("%s is not a thin volume any more", n)
	}
	word, _, _ := strings.Cut(state[0].Params, " ")
	sectors, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return 0, nil
	}
	return sectors, nil
}

// copies is how much of the metadata a snapshot may cost within a moment: writers who
// reach for places far from each other have a node copied with each write. It is no more
// than the trees of the volumes, which have so many sectors, and than what there is.
func (p pool) copies(mapped uint64) uint64 {
	nodes := mapped * 512 / p.block / leaf
	return min(nodes+nodes/leaf+1, p.metaUsed) * metaBlock
}

// lets is nil where a snapshot may be taken of volumes that have so many sectors in the
// pool.
func (p pool) lets(name string, mapped uint64) error {
	if err := p.roomy(name, 2); err != nil {
		return err
	}
	_, left := p.left()
	_, need := p.reserve()
	if copies := p.copies(mapped); left < 2*need+copies {
		return problem.Newf(problem.PoolFull, name, "the metadata of the thin pool have %d KiB left of %d, and a snapshot may take %d at once, besides %d that are to stay free for the volumes in it",
			left>>10, p.meta*metaBlock>>10, copies>>10, 2*need>>10)
	}
	return nil
}

func lately(fell uint64, shift int, unit string) string {
	if fell == 0 {
		return ""
	}
	return fmt.Sprintf(", which falls by %d %s within %s", fell>>shift, unit, horizon)
}

// horizon is how far is looked back, and so far ahead: somebody who goes on as he did must
// not come to the reserve while a snapshot is given up.
const horizon = 2 * time.Second

// Who begins to write fast has not written much yet: it is enough that he would come to
// the reserve in the time that it takes to give a snapshot up where a disk has much to do.
// For metadata that would be wrong. After a snapshot each of the nodes is copied once, by
// whoever writes first to what it leads to, and no more.
const (
	burst   = 100 * time.Millisecond
	handing = time.Second
)

// A tide is how fast a pool gets full. It may be asked by several goroutines.
type tide struct {
	mu         sync.Mutex
	data, meta ebb.Gauge
}

// roomy is nil while a pool has its reserve, and will soon.
func (t *tide) roomy(now time.Time, p pool, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	data, meta := p.left()
	fell, metaFell := t.data.Fell(now, data, horizon), t.meta.Fell(now, meta, horizon)
	return p.has(name, 1, max(fell, t.data.Soon(burst, handing)), metaFell)
}

// A pool is looked at the more often the less there is: at these rates nobody comes to the
// reserve between two looks. Metadata are used by the copies of a tree's nodes.
const (
	fastest     = 2 << 30   // bytes a second
	fastestMeta = 256 << 20 // bytes a second
	often       = 5 * time.Millisecond
	seldom      = 500 * time.Millisecond
)

// next is when to look again.
func (p pool) next() time.Duration {
	data, meta := p.left()
	keepData, keepMeta := p.reserve()
	until := func(left, keep, rate uint64) time.Duration {
		return time.Duration(float64(left-min(left, keep)) / float64(rate) * float64(time.Second))
	}
	return min(seldom, max(often, min(until(data, keepData, fastest), until(meta, keepMeta, fastestMeta))))
}
