package cow

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/holder"
)

// deputyOf is the process that answers for a provider.
func (r *rig) deputyOf() (number int, of *holder.Holder) {
	r.Helper()
	r.p.legacy.mu.Lock()
	defer r.p.legacy.mu.Unlock()
	d := r.p.legacy.deputy
	if d == nil || r.p.legacy.holder != d.holder {
		r.Fatal("there is no deputy")
	}
	return d.holder.PID(), d.holder
}

// A deputy that has ended gets a successor with the next set.
func TestDeputyEnds(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.take(nil)
		first, of := r.deputyOf()
		r.must(syscall.Kill(first, syscall.SIGKILL))
		<-of.Gone()
		second := r.take(nil)
		if is, of := r.deputyOf(); is == first || ended(of) {
			t.Errorf("the deputy is %d, and was %d", is, first)
		}
		r.must(os.WriteFile(r.path("file"), []byte("x"), 0o600))
		r.must(second.Err())
	})
}

// An agent that can start no holder says so again and again: sets keep the one deputy
// that they have, and nothing stays of it when they are released.
func TestNoHolder(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(r.p.Bequeath(nil))
		one := r.take(nil)
		is, of := r.deputyOf()
		r.must(r.p.Bequeath(nil))
		two := r.take(nil)
		if now, _ := r.deputyOf(); now != is {
			t.Errorf("the deputy is %d, and was %d", now, is)
		}
		r.must(one.Release(context.Background()))
		r.must(two.Release(context.Background()))
		select {
		case <-of.Gone():
		case <-time.After(10 * time.Second):
			t.Error("the deputy is left")
		}
		// Where the holder ends that there was, sets get a deputy.
		h, err := holder.Start(filepath.Join(t.TempDir(), "holder"), time.Minute)
		r.must(err)
		r.must(r.p.Bequeath(h))
		three := r.take(nil)
		r.must(r.p.Bequeath(nil))
		h.End()
		_, of = r.deputyOf()
		r.must(three.Release(context.Background()))
		select {
		case <-of.Gone():
		case <-time.After(10 * time.Second):
			t.Error("the deputy is left")
		}
	})
}
