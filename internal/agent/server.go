package agent

import (
	"context"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/peer"
	"stillpoint/internal/volume"
)

// A Server offers providers.
type Server struct {
	providers []snapshot.Provider // best first
	log       *slog.Logger
	routes    func(*http.ServeMux) // of what a resident agent does besides; may be nil
	only      int                  // the process that may be a client; 0 for all of our own user and root

	mu       sync.Mutex
	sessions map[string]*session
	open     sync.WaitGroup
	idle     func() // is called when the last session has ended; may be nil
}

// NewServer makes a Server. The first provider is that of clients who name none.
func NewServer(providers ...snapshot.Provider) *Server {
	return &Server{providers: providers, log: slog.New(slog.DiscardHandler), sessions: map[string]*session{}}
}

// Serve answers what comes to l, a Unix socket, from our own user or root,
// until ctx is over. Then all that clients hold is released before it returns.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"/session", s.session)
	s.handle(mux, "POST "+prefix+"/session/{session}/check", s.check)
	s.handle(mux, "POST "+prefix+"/session/{session}/set/{set}/prepare", s.prepare)
	s.handle(mux, "POST "+prefix+"/session/{session}/set/{set}/{step}", s.step)
	s.handle(mux, "POST "+prefix+"/session/{session}/leftovers", s.leftovers)
	s.handle(mux, "GET "+prefix+"/session/{session}/snapshot/{n}", s.look)
	mux.HandleFunc("POST "+prefix+"/session/{session}/snapshot/{n}/read", s.lend)
	s.handle(mux, "DELETE "+prefix+"/session/{session}/snapshot/{n}", s.release)
	if s.routes != nil {
		s.routes(mux)
	}
	server := &http.Server{
		Handler:     mux,
		ConnContext: withClient,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(&ours{l, s.only})
	s.open.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ours lets only those in who could do all this themselves.
type ours struct {
	net.Listener
	only int // the process that may come in; 0 for all
}

func (l *ours) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if u, ok := c.(*net.UnixConn); ok {
			pid, uid, err := peer.Of(u)
			if err == nil && (uid == 0 || uid == os.Geteuid()) && (l.only == 0 || l.only == pid) {
				return c, nil
			}
		}
		c.Close()
	}
}

// clientKey is where a request's context has the process at the other end.
type clientKey struct{}

func withClient(ctx context.Context, c net.Conn) context.Context {
	pid := 0
	if u, ok := c.(*net.UnixConn); ok {
		pid, _, _ = peer.Of(u) // ours has asked it once already
	}
	return context.WithValue(ctx, clientKey{}, pid)
}

func clientOf(r *http.Request) int {
	pid, _ := r.Context().Value(clientKey{}).(int)
	return pid
}

// handle adds a handler whose error goes to the client.
func (s *Server) handle(mux *http.ServeMux, pattern string, f func(*http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		answer, err := f(r)
		if err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			answer = failureOf(err)
		}
		if answer != nil {
			_ = gob.NewEncoder(w).Encode(answer) // else the client is gone
		}
	})
}

// session lasts as long as the client's connection.
func (s *Server) session(w http.ResponseWriter, r *http.Request) {
	provider := s.provider(r.URL.Query().Get("provider"))
	if provider == nil {
		http.NotFound(w, r)
		return
	}
	provider, err := chosen(provider, choiceOf(r.URL.Query()))
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = gob.NewEncoder(w).Encode(failureOf(err))
		return
	}
	id := rand.Text()
	own := &session{provider: provider, client: clientOf(r), since: time.Now(), sets: map[string]snapshot.Pending{}, foreign: map[int]bool{}}
	s.mu.Lock()
	s.sessions[id] = own
	s.open.Add(1)
	s.mu.Unlock()
	defer s.open.Done()
	if gob.NewEncoder(w).Encode(greeting{provider.Name(), provider.About(), id}) == nil && http.NewResponseController(w).Flush() == nil {
		<-r.Context().Done()
	}
	if n := own.end(context.WithoutCancel(r.Context())); n > 0 {
		s.log.Info("client gone, its snapshots released", "client", own.client, "snapshots", n)
	}
	s.mu.Lock()
	delete(s.sessions, id)
	s.mu.Unlock()
	if s.idle != nil && s.isIdle() {
		s.idle()
	}
}

// provider is the one with the name, nil where there is none.
func (s *Server) provider(name string) snapshot.Provider {
	for _, p := range s.providers {
		if name == "" || p.Name() == name {
			return p
		}
	}
	return nil
}

func (s *Server) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions) == 0
}

func (s *Server) check(r *http.Request) (any, error) {
	own, err := s.of(r)
	if err != nil {
		return nil, err
	}
	var v volume.Volume
	if err := gob.NewDecoder(r.Body).Decode(&v); err != nil {
		return nil, err
	}
	return nil, own.provider.Check(r.Context(), v)
}

var errNoSession = problem.Newf(problem.SnapshotLost, "", "the agent does not know this session")

func (s *Server) of(r *http.Request) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.sessions[r.PathValue("session")]; own != nil {
		return own, nil
	}
	return nil, errNoSession
}

func (s *Server) prepare(r *http.Request) (any, error) {
	own, err := s.of(r)
	if err != nil {
		return nil, err
	}
	var ts []snapshot.Target
	if err := gob.NewDecoder(r.Body).Decode(&ts); err != nil {
		return nil, err
	}
	id := r.PathValue("set")
	pending, err := own.provider.Prepare(r.Context(), id, ts)
	if err != nil {
		return nil, err
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	if own.over || own.sets[id] != nil {
		return nil, errors.Join(errNoSession, pending.Abort(context.WithoutCancel(r.Context())))
	}
	own.sets[id] = pending
	return ready{pending.Instants(), pending.Suspends()}, nil
}

func (s *Server) step(r *http.Request) (any, error) {
	own, err := s.of(r)
	if err != nil {
		return nil, err
	}
	own.mu.Lock()
	pending := own.sets[r.PathValue("set")]
	own.mu.Unlock()
	if pending == nil {
		return nil, errNoSession
	}
	switch step := r.PathValue("step"); step {
	case "ready":
		if readier, ok := pending.(snapshot.Readier); ok {
			return nil, readier.Ready(r.Context())
		}
		return nil, nil
	case "hold":
		return nil, pending.Hold(r.Context())
	case "resume":
		err := pending.Resume(r.Context())
		// Not before: until now our own log could have been on a volume that
		// was frozen.
		if n := own.taken(r.PathValue("set")); n > 0 {
			s.log.Info("snapshots taken", "client", own.client, "set", r.PathValue("set"), "provider", own.provider.Name(), "snapshots", n)
		}
		return nil, err
	case "abort":
		return nil, pending.Abort(r.Context())
	case "commit":
		snaps, err := pending.Commit(r.Context())
		if err != nil {
			return nil, err
		}
		return own.add(r.Context(), snaps, false), nil
	default:
		return nil, fmt.Errorf("no step %q", step)
	}
}

func (s *Server) leftovers(r *http.Request) (any, error) {
	own, err := s.of(r)
	if err != nil {
		return nil, err
	}
	snaps, err := own.provider.Leftovers(r.Context())
	return found{own.add(r.Context(), snaps, true), failureOf(err)}, nil
}

func (s *Server) snapshot(r *http.Request) (snapshot.Snapshot, error) {
	own, err := s.of(r)
	if err != nil {
		return nil, err
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n >= len(own.snapshots) {
		return nil, errNoSession
	}
	return own.snapshots[n], nil
}

func (s *Server) look(r *http.Request) (any, error) {
	snap, err := s.snapshot(r)
	if err != nil {
		return nil, err
	}
	root := snap.Root() // which may be what makes the others known
	return look{Parts: snap.Parts(), Gaps: snap.Gaps(), Root: root, Cache: snapshot.CacheOf(snap), Err: failureOf(snap.Err())}, nil
}

func (s *Server) release(r *http.Request) (any, error) {
	snap, err := s.snapshot(r)
	if err != nil {
		return nil, err
	}
	if err := snap.Release(r.Context()); err != nil {
		return nil, err
	}
	s.log.Info("snapshot released", "client", clientOf(r), "id", snap.ID())
	if own, err := s.of(r); err == nil {
		own.forget(snap)
	}
	return nil, nil
}
