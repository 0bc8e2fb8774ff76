package zfs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
)

// Release destroys the snapshots that no other target of the set needs, and with the
// last one everything else of the set. When it fails it is tried again until it does not.
func (t *target) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.release(ctx, busyLimit)
	if err != nil {
		t.set.p.zfs.later(&t.trying, func(ctx context.Context) error { return t.release(ctx, 0) })
	}
	return err
}

func (t *target) release(ctx context.Context, patience time.Duration) error {
	unlock, err := t.set.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set.state == over {
		t.view.hide() // it may have been given up
		t.released = true
		return nil
	}
	// What has not come back may be the mount of this one, which would be waited for.
	if err := t.set.p.zfs.refuse(); err != nil {
		return problem.New(problem.ReleaseFailed, t.ID(), err)
	}
	if !t.released {
		t.released = true
		t.unneed()
		t.view.hide()
	}
	return t.set.release(ctx, patience)
}

// unneed tells the datasets that t needs their snapshots no more.
func (t *target) unneed() {
	if t.unneeded {
		return
	}
	t.unneeded = true
	t.set.settled.Lock()
	defer t.set.settled.Unlock()
	for _, name := range t.datasets() {
		t.set.members[name].users--
	}
}

// release destroys what nobody needs any more, and waits a while for what is in use. It
// goes on after a failure, and may be called again.
func (s *set) release(ctx context.Context, patience time.Duration) error {
	var errs []error
	left := 0
	for name := range maps.Keys(s.pools) {
		var ms []*member
		for _, m := range s.on(name) {
			if m.users > 0 {
				left++
				continue
			}
			if !m.destroyed {
				ms = append(ms, m)
			}
		}
		err := s.unmount(ctx, name, ms)
		if err == nil {
			err = s.destroy(ctx, name, ms, patience)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if err == nil && left == 0 && s.record != nil {
		err = s.record.remove()
		fault.Point("zfs:record-removed")
	}
	if err != nil {
		return problem.New(problem.ReleaseFailed, s.id, err)
	}
	if left == 0 {
		s.close()
	}
	return nil
}

// unmount takes the mounts of members away. Before the set is taken there are none.
func (s *set) unmount(ctx context.Context, pool string, ms []*member) error {
	if s.state != taken || len(ms) == 0 {
		return nil
	}
	return s.p.zfs.do(ctx, callLimit, "end of mounts of "+pool, func() error {
		for _, m := range ms {
			m.unmount(s.space)
		}
		return nil
	})
}

// destroy destroys the snapshots of members, where they still are what is on record.
func (s *set) destroy(ctx context.Context, pool string, ms []*member, patience time.Duration) error {
	if s.record == nil || !s.asked {
		return nil // nothing can be there that is ours
	}
	r := remover{p: s.p, device: s.device, record: s.record, patience: patience}
	found := map[string]*member{}
	var errs []error
	for _, m := range ms {
		name, err := r.find(ctx, m.dataset, s.record.intent(m.dataset), "")
		switch {
		case err != nil:
			errs = append(errs, err)
		case name == "":
			m.destroyed = true
		default:
			found[name] = m
		}
	}
	done, err := r.remove(ctx, pool, slices.Sorted(maps.Keys(found)))
	for _, name := range done {
		found[name].destroyed = true
	}
	return errors.Join(append(errs, err)...)
}

// undo removes everything of the set, however far it came.
func (s *set) undo(ctx context.Context, patience time.Duration) error {
	for _, t := range s.targets {
		t.view.hide()
	}
	for _, m := range s.members {
		m.users = 0
	}
	return s.release(ctx, patience)
}

// close gives back what ends with the process anyway.
func (s *set) close() {
	if s.state != over {
		close(s.quit)
	}
	s.state = over
	for _, m := range s.members {
		if s.space != nil {
			m.unmount(s.space)
		}
	}
	if s.space != nil {
		_ = s.space.Close()
	}
	if s.device != nil {
		_ = s.device.Close()
	}
	if s.record != nil {
		s.record.close()
	}
}
