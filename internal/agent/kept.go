package agent

import (
	"context"
	"encoding/gob"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// A Kept is a snapshot that the resident agent keeps, until somebody deletes it.
type Kept struct {
	ID           string
	Taken        time.Time
	Paths        []string
	Volumes      []KeptVolume
	Uncovered    []capture.Uncovered
	Applications []KeptApplication
	Mounts       []string // folders where it is mounted, as those see them who mounted it
}

// A KeptApplication is one that has files in it.
type KeptApplication struct {
	ID     string
	AtRest bool         // at the instant
	Code   problem.Code // why it was not
	Reason string
}

// A KeptVolume is one volume of it.
type KeptVolume struct {
	Volume   volume.ID
	Provider string
	Code     problem.Code // why it is lost; empty while it is good
	Reason   string
	Held     time.Duration // for how long writers had to wait for it
	Cache    *snapshot.Cache
	Gaps     []snapshot.Gap
}

// Lost tells whether some of it is.
func (k *Kept) Lost() bool {
	return slices.ContainsFunc(k.Volumes, func(v KeptVolume) bool { return v.Code != "" })
}

// A mounted says where the client has mounted a snapshot.
type mounted struct {
	Dir string
	IDs []uint64 // of the mounts there; one may cover another
}

// A store is all kept snapshots.
type store struct {
	mu   sync.Mutex
	sets []*kept
	over bool
}

type kept struct {
	set    *capture.Set
	lost   bool // it was said
	mounts []attached
}

// An attached is a mount in some process's namespace.
type attached struct {
	mounted
	namespace *os.File
}

func (a *attached) detach() error {
	if err := mount.Unmount(a.namespace, a.Dir, a.IDs...); err != nil {
		return problem.New(problem.ReleaseFailed, a.Dir, err)
	}
	return a.namespace.Close()
}

// add keeps a set, unless the agent is about to end.
func (st *store) add(s *capture.Set) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return false
	}
	st.sets = append(st.sets, &kept{set: s})
	return true
}

// list describes all.
func (st *store) list() []Kept {
	st.mu.Lock()
	defer st.mu.Unlock()
	all := []Kept{}
	for _, k := range st.sets {
		all = append(all, k.describe())
	}
	return all
}

func (k *kept) describe() Kept {
	d := Kept{ID: k.set.ID, Taken: k.set.Taken(), Paths: k.set.Paths, Uncovered: k.set.Uncovered}
	for _, t := range k.set.Snapshots {
		v := KeptVolume{Volume: t.Volume(), Provider: t.Provider, Gaps: t.Gaps()}
		if ps := t.Parts(); len(ps) > 0 { // of one that cannot be shown there may be none
			v.Held = ps[0].Held
		}
		if err := t.Err(); err != nil {
			v.Code, v.Reason = problem.CodeOf(err), problem.Text(err)
		}
		v.Cache = snapshot.CacheOf(t.Snapshot)
		d.Volumes = append(d.Volumes, v)
	}
	for _, m := range k.mounts {
		d.Mounts = append(d.Mounts, m.Dir)
	}
	for _, a := range k.set.Applications.All {
		of := KeptApplication{ID: a.ID, AtRest: a.AtRest()}
		if !of.AtRest {
			of.Code, of.Reason = problem.CodeOf(a.Err), problem.Text(a.Err)
		}
		d.Applications = append(d.Applications, of)
	}
	return d
}

// find returns the one set whose id begins so.
func (st *store) find(id string) (*kept, error) {
	var found *kept
	for _, k := range st.sets {
		if id != "" && strings.HasPrefix(k.set.ID, id) {
			if found != nil {
				return nil, problem.Newf(problem.NoSuchSnapshot, id, "several snapshots begin so: give more of the id")
			}
			found = k
		}
	}
	if found == nil {
		return nil, problem.Newf(problem.NoSuchSnapshot, id, "the agent keeps no such snapshot; `stillpoint snapshot list` has all")
	}
	return found, nil
}

// delete unmounts and releases a set. It stays in the list when that fails.
func (st *store) delete(ctx context.Context, id string) (string, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	k, err := st.find(id)
	if err != nil {
		return "", err
	}
	if err := k.delete(ctx); err != nil {
		return "", err
	}
	st.sets = slices.DeleteFunc(st.sets, func(of *kept) bool { return of == k })
	return k.set.ID, nil
}

func (k *kept) delete(ctx context.Context) error {
	if err := k.unmount(); err != nil {
		return err
	}
	return k.set.Release(ctx)
}

func (k *kept) unmount() error {
	for len(k.mounts) > 0 {
		if err := k.mounts[0].detach(); err != nil {
			return err
		}
		k.mounts = k.mounts[1:]
	}
	return nil
}

// end deletes all and takes no more.
func (st *store) end(ctx context.Context) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.over = true
	var errs []error
	for _, k := range st.sets {
		errs = append(errs, k.delete(ctx))
	}
	st.sets = nil
	return errors.Join(errs...)
}

// mounted notes where a set is mounted.
func (st *store) mounted(id string, a attached) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	k, err := st.find(id)
	if err != nil {
		return err
	}
	k.mounts = append(k.mounts, a)
	return nil
}

// newlyLost returns the sets that are lost, each once. What is given up is shown no
// more. It does not wait for who deletes some, which may take as long as a program
// that hangs: who asks has more to look after, and asks again.
func (st *store) newlyLost() []Kept {
	if !st.mu.TryLock() {
		return nil
	}
	defer st.mu.Unlock()
	var all []Kept
	for _, k := range st.sets {
		if k.set.Yielded() {
			_ = k.unmount() // is tried again, and Delete says why it fails
		}
		if !k.lost && k.set.Err() != nil {
			k.lost = true
			all = append(all, k.describe())
		}
	}
	return all
}

// The requests.

func (r *Resident) create(q *http.Request) (any, error) {
	var w creation
	if err := gob.NewDecoder(q.Body).Decode(&w); err != nil {
		return nil, err
	}
	providers, err := withCache(r.o.Providers, w.Cache)
	if err != nil {
		return nil, err
	}
	r.server.open.Add(1)
	defer r.server.open.Done()
	ctx := q.Context()
	t, err := r.o.Host(ctx)
	if err != nil {
		return nil, err
	}
	p, err := capture.Make(ctx, t, providers, w.Paths)
	if err != nil {
		return nil, err
	}
	s, err := capture.Take(ctx, p, r.o.Applications, func(e quiesce.Event) {
		r.o.Log.Info("applications", "application", e.Application, "text", e.Text, "code", problem.CodeOf(e.Err))
	})
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil || !r.store.add(s) { // nobody would know of it
		return nil, errors.Join(ctx.Err(), s.Release(context.WithoutCancel(ctx)))
	}
	k := (&kept{set: s}).describe()
	r.o.Log.Info("snapshot created", "id", k.ID, "paths", k.Paths, "client", clientOf(q))
	return k, nil
}

func (r *Resident) list(*http.Request) (any, error) { return r.store.list(), nil }

func (r *Resident) pieces(q *http.Request) (any, error) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	k, err := r.store.find(q.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := k.set.Err(); err != nil {
		return nil, err
	}
	return k.set.Pieces(), nil
}

func (r *Resident) noteMount(q *http.Request) (any, error) {
	var m mounted
	if err := gob.NewDecoder(q.Body).Decode(&m); err != nil {
		return nil, err
	}
	ns, err := mount.Namespace(clientOf(q))
	if err != nil {
		return nil, err
	}
	if err := r.store.mounted(q.PathValue("id"), attached{m, ns}); err != nil {
		ns.Close()
		return nil, err
	}
	r.o.Log.Info("snapshot mounted", "id", q.PathValue("id"), "folder", m.Dir, "client", clientOf(q))
	return nil, nil
}

func (r *Resident) delete(q *http.Request) (any, error) {
	// Once begun it is not given up when the client goes.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), endTime)
	defer cancel()
	id, err := r.store.delete(ctx, q.PathValue("id"))
	if err != nil {
		return nil, err
	}
	r.o.Log.Info("snapshot deleted", "id", id, "client", clientOf(q))
	return nil, nil
}
