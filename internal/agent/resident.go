package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// Options of a resident agent.
type Options struct {
	Socket       string
	Providers    []snapshot.Provider // best first
	Applications quiesce.Settings    // how applications are brought to rest
	Host         func(context.Context) (*volume.Table, error)
	Paths        []string // whose volumes are watched; none stands for all that can be
	Version      string
	Log          *slog.Logger
	Ready        func() // is called when clients can come and volumes are watched

	Alone time.Duration // how long what is watched is kept for the next agent; 0 stands for holder.Alone
}

// A Resident is the agent that stays: it watches volumes, so that what is opened
// there needs no care later, and keeps snapshots that nobody waits for.
type Resident struct {
	o       Options
	server  *Server
	store   store
	heirs   *heirs // nil where there can be none
	rates   rates
	started time.Time
	said    map[string]bool              // what was said of volumes
	named   map[string]volume.ID         // the volume that each of the paths was on at first
	mounts  map[volume.ID][]volume.Mount // of what is to be watched, when that was looked at
}

// Run runs a resident agent until ctx is over. With the cause ErrRestart what is
// watched is left to the next agent, which must begin soon, and this process has
// to end. It fails with the code busy where
// another one has the socket.
func Run(ctx context.Context, o Options) error {
	l, unlock, err := listen(o.Socket)
	if err != nil {
		return err
	}
	defer unlock()
	r := &Resident{o: o, server: NewServer(o.Providers...), started: time.Now(), said: map[string]bool{}, named: map[string]volume.ID{}}
	r.heirs = newHeirs(r)
	r.server.log = o.Log
	for _, p := range o.Providers {
		if t, ok := p.(snapshot.Teller); ok {
			t.Tell(o.Log)
		}
	}
	r.server.routes = func(mux *http.ServeMux) {
		r.server.handle(mux, "GET "+prefix+"/status", r.status)
		r.server.handle(mux, "POST "+prefix+"/kept", r.create)
		r.server.handle(mux, "GET "+prefix+"/kept", r.list)
		r.server.handle(mux, "GET "+prefix+"/kept/{id}", r.pieces)
		r.server.handle(mux, "DELETE "+prefix+"/kept/{id}", r.delete)
		r.server.handle(mux, "POST "+prefix+"/kept/{id}/mount", r.noteMount)
	}
	return r.run(ctx, l)
}

func (r *Resident) run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.sweep(ctx)
	mounts, err := mount.NewWatch() // before the first look at them
	if err != nil {
		return err
	}
	r.watchAll(ctx)
	watched := make(chan error, 1)
	changed := make(chan mount.Change, 1)
	go func() {
		err := mounts.Run(ctx.Done(), func(c mount.Change) {
			select {
			case before := <-changed: // which nobody has looked at
				c.Came = c.Came || before.Came
			default:
			}
			changed <- c
		})
		if err != nil {
			cancel() // an agent that is blind is none
		}
		watched <- errors.Join(err, mounts.Close())
	}()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		r.look(ctx, changed)
	}()
	unburdened := make(chan struct{})
	go func() { // nobody waits for it, and it may have to wait
		defer close(unburdened)
		r.unburden(ctx)
	}()
	r.o.Log.Info("agent started", "socket", r.o.Socket, "version", r.o.Version)
	r.o.Ready()
	err = r.server.Serve(ctx, l)
	cancel()
	<-looked
	<-unburdened
	err = errors.Join(err, <-watched, r.end(errors.Is(context.Cause(ctx), ErrRestart)))
	r.o.Log.Info("agent ended")
	return err
}

// watchAll begins with what an earlier agent watched.
func (r *Resident) watchAll(ctx context.Context) {
	if r.heirs == nil {
		r.sync(ctx)
		return
	}
	estate := r.inherit(ctx)
	r.sync(ctx)
	r.heirs.begin(estate)
}

// calm is how long mounts may come and go before they are looked at again: a host
// of containers never rests.
const calm = 300 * time.Millisecond

// rest is how long no mount has gone before they are looked at again, which opens each
// for a moment: who unmounts several, one after the other, is not to find one in use.
// Volumes of which no mount is left are let go of before.
const rest = time.Second

// look keeps an eye on mounts and snapshots.
func (r *Resident) look(ctx context.Context, changed <-chan mount.Change) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var rested <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-changed:
			if !c.Came {
				r.letGo(c.Left)
				rested = time.After(rest)
				continue
			}
			rested = nil
			r.sync(ctx) // what is opened there from now on is to be seen
			select {
			case <-ctx.Done():
			case <-time.After(calm):
			}
		case <-rested:
			rested = nil
			r.sync(ctx)
		case <-tick.C:
			var all []snapshot.Watched
			for _, w := range r.watchers() {
				all = append(all, w.Watched()...)
			}
			r.rates.sample(all)
			for _, k := range r.store.newlyLost() {
				for _, v := range k.Volumes {
					if v.Code != "" {
						r.o.Log.Error("snapshot lost", "id", k.ID, "volume", v.Volume, "code", v.Code, "reason", v.Reason)
					}
				}
			}
		}
	}
}

func (r *Resident) watchers() []snapshot.Watcher {
	var all []snapshot.Watcher
	for _, p := range r.o.Providers {
		if w, ok := p.(snapshot.Watcher); ok {
			all = append(all, w)
		}
	}
	return all
}

// sync watches what is to be watched, and nothing else.
func (r *Resident) sync(ctx context.Context) {
	t, err := r.o.Host(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.o.Log.Error("mounts cannot be read", "reason", err)
		}
		return
	}
	wanted := r.wanted(t)
	r.mounts = map[volume.ID][]volume.Mount{}
	for id, v := range wanted {
		r.mounts[id] = v.Mounts
	}
	for _, w := range r.watchers() {
		is := map[volume.ID]bool{}
		for _, of := range w.Watched() {
			if _, want := wanted[of.Volume]; of.Kept && want {
				is[of.Volume] = true
			} else if of.Kept {
				r.say(w.Unwatch(of.Volume), "volume no longer watched", of.Volume, "")
			}
		}
		for id, v := range wanted {
			if is[id] {
				continue
			}
			err := w.Watch(ctx, v)
			if problem.Is(err, problem.NoProvider) && len(r.o.Paths) == 0 || ctx.Err() != nil {
				continue // it is not for this one
			}
			r.say(err, "volume watched", id, v.Mounts[0].Point)
		}
	}
}

// letGo ends the watch of volumes of which no mount is left.
func (r *Resident) letGo(left map[int]bool) {
	isLeft := func(m volume.Mount) bool { return left[m.ID] }
	for _, w := range r.watchers() {
		for _, of := range w.Watched() {
			if at := r.mounts[of.Volume]; of.Kept && len(at) > 0 && !slices.ContainsFunc(at, isLeft) {
				r.say(w.Unwatch(of.Volume), "volume no longer watched", of.Volume, "")
			}
		}
	}
}

// wanted are the volumes of the paths, or all of this host. The path of a volume
// that was unmounted leads to another one, which nobody has asked for.
func (r *Resident) wanted(t *volume.Table) map[volume.ID]volume.Volume {
	wanted := map[volume.ID]volume.Volume{}
	for _, path := range r.o.Paths {
		v, _, _, err := t.Find(path)
		if err != nil {
			r.say(err, "", volume.ID(path), path)
			continue
		}
		if first, known := r.named[path]; !known {
			r.named[path] = v.ID
		} else if v.ID != first {
			continue
		}
		wanted[v.ID] = v
	}
	if len(r.o.Paths) > 0 {
		return wanted
	}
	for _, v := range t.Volumes() {
		if v.Kind == volume.Local && !v.ReadOnly {
			wanted[v.ID] = v
		}
	}
	return wanted
}

// say logs what became of a volume; of an error, once until it is another one.
func (r *Resident) say(err error, what string, id volume.ID, point string) {
	if err == nil {
		r.o.Log.Info(what, "volume", id, "mounted", point)
		return
	}
	key := string(id) + " " + problem.Text(err)
	if !r.said[key] {
		r.said[key] = true
		r.o.Log.Warn("volume cannot be watched", "volume", id, "mounted", point, "code", problem.CodeOf(err), "reason", problem.Text(err))
	}
}

// end releases everything, or all but what is watched.
func (r *Resident) end(restart bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	errs := []error{r.store.end(ctx)}
	defer r.heirs.end(restart)
	if restart {
		return errors.Join(errs...)
	}
	for _, w := range r.watchers() {
		for _, of := range w.Watched() {
			errs = append(errs, w.Unwatch(of.Volume))
		}
	}
	return errors.Join(errs...)
}
