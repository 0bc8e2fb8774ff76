package agent

import (
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Status says how a resident agent is.
type Status struct {
	PID       int
	Version   string
	Started   time.Time
	Volumes   []VolumeStatus
	Snapshots []Held
	Holder    *HolderStatus // nil where no watch can outlive the agent
	Unlocked  string        // why memory of the agent may be swapped out; empty where not
}

// A VolumeStatus is a volume that is watched, or has a snapshot.
type VolumeStatus struct {
	Volume    volume.ID
	Type      string   // empty for one that is not mounted any more
	Points    []string // where it is mounted
	Provider  string
	Watched   bool
	Armed     bool
	Events    int64     // accesses that have waited since the watch began
	Since     time.Time // what was opened then or later is noticed
	Inherited bool      // the watch was taken over from an earlier agent
	PerSecond float64   // of the last ten seconds, or since the watch began
	Unseen    []snapshot.Unseen
	Code      problem.Code // why Unseen is not known
	Reason    string
}

// A Held is one volume's snapshot that the agent holds.
type Held struct {
	ID       string
	Volume   volume.ID
	Provider string
	Taken    time.Time
	Kept     string // the id of the kept snapshot that it is part of
	Client   int    // the process that it is for, when it is not kept
	Code     problem.Code
	Reason   string
	Cache    *snapshot.Cache
}

func heldOf(s snapshot.Snapshot, provider string) Held {
	h := Held{ID: s.ID(), Volume: s.Volume(), Provider: provider}
	if ps := s.Parts(); len(ps) > 0 {
		h.Taken = ps[0].Taken
	}
	if err := s.Err(); err != nil {
		h.Code, h.Reason = problem.CodeOf(err), problem.Text(err)
	}
	h.Cache = snapshot.CacheOf(s)
	return h
}

// held lists what clients hold.
func (s *Server) held() []Held {
	s.mu.Lock()
	var sessions []*session
	for _, own := range s.sessions {
		sessions = append(sessions, own)
	}
	s.mu.Unlock()
	slices.SortFunc(sessions, func(a, b *session) int { return a.since.Compare(b.since) })
	var all []Held
	for _, own := range sessions {
		own.mu.Lock()
		for i, snap := range own.snapshots {
			if !own.foreign[i] {
				h := heldOf(snap, own.provider.Name())
				h.Client = own.client
				all = append(all, h)
			}
		}
		own.mu.Unlock()
	}
	return all
}

func (st *store) held() []Held {
	st.mu.Lock()
	defer st.mu.Unlock()
	var all []Held
	for _, k := range st.sets {
		for _, t := range k.set.Snapshots {
			h := heldOf(t.Snapshot, t.Provider)
			h.Kept = k.set.ID
			all = append(all, h)
		}
	}
	return all
}

// status looks for what is hot, too, which may take some seconds.
func (r *Resident) status(q *http.Request) (any, error) {
	s := Status{PID: os.Getpid(), Version: r.o.Version, Started: r.started}
	t, err := r.o.Host(q.Context())
	if err != nil {
		return nil, err
	}
	mountedNow := map[volume.ID]volume.Volume{}
	for _, v := range t.Volumes() {
		mountedNow[v.ID] = v
	}
	for _, w := range r.watchers() {
		for _, of := range w.Watched() {
			vs := VolumeStatus{Volume: of.Volume, Provider: w.Name(), Watched: of.Kept, Armed: of.Armed, Events: of.Events, PerSecond: r.rates.of(of.Volume),
				Since: of.Since, Inherited: of.Inherited}
			if v, ok := mountedNow[of.Volume]; ok {
				vs.Type = v.FSType
				for _, m := range v.Mounts {
					vs.Points = append(vs.Points, m.Point)
				}
				unseen, err := w.Unseen(q.Context(), v)
				vs.Unseen = unseen
				if err != nil {
					vs.Code, vs.Reason = problem.CodeOf(err), problem.Text(err)
				}
			}
			s.Volumes = append(s.Volumes, vs)
		}
	}
	s.Holder, s.Unlocked = r.heirs.status(q.Context())
	s.Snapshots = append(r.store.held(), r.server.held()...)
	return s, nil
}

// sampled is over how many seconds the rate of events is told.
const sampled = 10

// A rates knows how many events there were in the last seconds.
type rates struct {
	mu      sync.Mutex
	samples map[volume.ID][]int64 // one a second, the oldest first
}

func (r *rates) sample(all []snapshot.Watched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := map[volume.ID][]int64{}
	for _, w := range all {
		s := append(r.samples[w.Volume], w.Events)
		now[w.Volume] = s[max(0, len(s)-sampled-1):]
	}
	r.samples = now
}

func (r *rates) of(id volume.ID) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.samples[id]
	if len(s) < 2 {
		return 0
	}
	return float64(s[len(s)-1]-s[0]) / float64(len(s)-1)
}
