package sqlite

import (
	"errors"
	"os"
	"sync"
	"time"

	"modernc.org/sqlite" // the driver, too

	"stillpoint/internal/problem"
	"stillpoint/internal/writer/aide"
)

// Main turns this process into the one that holds databases, if it is to be
// that, and then never returns. It stands at the beginning of main.
func Main() { aide.Main(program, &keeper{held: map[int64]*held{}}) }

// A keeper is what the helper process does. No file of a database is opened in
// it but by SQLite: to close another descriptor would unlock it.
type keeper struct {
	mu      sync.Mutex
	next    int64
	held    map[int64]*held
	closing sync.WaitGroup
}

// What the calls bring.
type (
	Opening struct{ ID, Path string }
	Resting struct {
		Number       int64
		Wait, Window time.Duration
		Asked        time.Time // by the clock on the wall, without the monotonic one
	}
)

// Ready is called first.
func (k *keeper) Ready(bool, *bool) error { return nil }

// Open opens a database, and empties its write-ahead log as far as others let
// it.
func (k *keeper) Open(o Opening, number *int64) error {
	h := &held{id: o.ID}
	var err error
	if h.as, err = ownerOf(o.ID, o.Path); err != nil {
		return aide.Failed(err)
	}
	if err := h.as.do(func() error { return h.open(o.Path) }); err != nil {
		h.close()
		return aide.Failed(understood(o.ID, err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next++
	k.held[k.next], *number = h, k.next
	return nil
}

// Rest locks a database until Release, or until the window is over.
func (k *keeper) Rest(r Resting, _ *bool) error {
	k.mu.Lock()
	h := k.held[r.Number]
	k.mu.Unlock()
	if h == nil {
		return aide.Failed(problem.Newf(problem.WriterFailed, "", "the session has ended"))
	}
	return aide.Failed(h.rest(r))
}

// Release unlocks a database, and closes it when nobody waits for that any
// more: closing may write, and its volume may still be frozen.
func (k *keeper) Release(number int64, _ *bool) error {
	k.mu.Lock()
	h := k.held[number]
	delete(k.held, number)
	if h != nil {
		k.closing.Add(1)
	}
	k.mu.Unlock()
	if h == nil {
		return nil
	}
	err := h.release()
	go func() {
		defer k.closing.Done()
		h.close()
	}()
	return aide.Failed(err)
}

// End ends the process, and with it all locks at once, if somebody is still at
// rest: then we were killed, and a volume may be frozen, on which nothing can
// be closed in order. A lock of a process that waits there would be worse than
// the empty log that may stay beside a database.
func (k *keeper) End() {
	k.mu.Lock()
	rest := len(k.held)
	k.mu.Unlock()
	if rest > 0 {
		os.Exit(0)
	}
	closed := make(chan struct{})
	go func() { k.closing.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
	}
}

func busy(err error) bool {
	return primary(err) == codeBusy || primary(err) == codeLocked
}

// primary is SQLite's primary result code, 0 for an error of others.
func primary(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// SQLite's result codes (sqlite.org/rescode.html).
const (
	codePermission = 3
	codeBusy       = 5
	codeLocked     = 6
	codeNoMemory   = 7
	codeReadOnly   = 8
	codeFull       = 13
	codeCannotOpen = 14
)

// understood gives an error of SQLite's its code.
func understood(id string, err error) error {
	if err == nil {
		return nil
	}
	code := problem.WriterFailed
	switch primary(err) {
	case codeBusy, codeLocked:
		code = problem.WriterBusy
	case codePermission, codeReadOnly, codeCannotOpen:
		code = problem.WriterRights
	case codeNoMemory, codeFull:
		code = problem.WriterResources
	}
	return problem.New(code, id, err)
}
