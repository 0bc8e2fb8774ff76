// Package holder keeps the filters of an agent alive while the agent is
// replaced, and the server going when the agent fails. A holder is a child
// process that has duplicates of all that makes up a filter: its fanotify group
// and its private mount. Only files that were opened while a filter was there
// can be seen by the next one, so an agent that is started anew must not begin
// with a new one; but who keeps a group open keeps everybody waiting whom its
// reader has left without an answer. So the holder is a supervisor, too: it
// ends the agent whose heart stops, and when the agent is dead it disarms the
// filters and lets everybody go on, until the next agent takes them over. It
// knows groups, mounts and one process; not why anything is filtered.
//
// # What is left of a filter that was disarmed
//
// The mark that makes files reportable, under its ignore mask, so that nobody
// waits and what is opened meanwhile can be seen by the next agent. Who had
// passed the filter's check before is answered as it comes. Those whose events
// the dead agent had read are answered by number: the kernel knows an event by
// the number that its descriptor had in the reader's table, and takes the
// answer from whoever has the group (process_access_response).
//
// # Who ends whom
//
// The holder ends an agent that does not beat. A holder that does not answer
// is ended by its agent, by the next one, or by the guard (guard.Follow) where
// both are stopped while somebody waits. When neither has the group any more,
// the kernel lets everybody go on, and only the filters are lost. A holder that
// nobody takes the filters from ends after a while.
package holder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/process"
	"stillpoint/internal/tool"
)

// ErrGone says that there is no holder any more: what one answers no question
// in time, is killed.
var ErrGone = errors.New("the holder process is gone")

// answerTime is how long a holder may take to answer. It has nothing else to do.
const answerTime = 2 * time.Second

// Alone is how long a holder waits for the next agent.
const Alone = time.Minute

// A Filter is what a holder keeps of one.
type Filter struct {
	Name  string
	Since time.Time // it exists
	Group *fanotify.Permission
	Mount *os.File // a directory of the private mount
}

// Close lets go of it.
func (f *Filter) Close() error { return errors.Join(f.Group.Close(), f.Mount.Close()) }

// A Holder is the agent's end. Its methods may be called from several
// goroutines.
type Holder struct {
	process  *tool.Process
	socket   *net.UnixConn
	relieve  func() // the sentinel
	handle   *os.File
	disarmed *os.File
	unlocked error
	gone     chan struct{}

	mu  sync.Mutex // one question at a time
	seq uint32
}

// Keep gives the holder a filter, in the place of an earlier one of the name.
func (h *Holder) Keep(f Filter) error {
	if len(f.Name) > nameMost {
		return fmt.Errorf("keep %.20s…: the name is too long", f.Name)
	}
	group, err := f.Group.File()
	if err == nil {
		defer group.Close()
		err = h.ask(message{op: opKeep, a: since(f.Since), b: uint64(process.MostDescriptors()), name: f.Name}, int(group.Fd()), int(f.Mount.Fd()))
	}
	if err != nil {
		return fmt.Errorf("keep the filter of %s: %w", f.Name, err)
	}
	return nil
}

// Forget makes the holder let go of a filter. It is none if it has none.
func (h *Holder) Forget(name string) error {
	if err := h.ask(message{op: opForget, name: name}); err != nil {
		return fmt.Errorf("keep the filter of %s no more: %w", name, err)
	}
	return nil
}

// A Pulse is how an agent is.
type Pulse struct {
	Well    bool
	Armed   bool // there may be somebody who waits for an answer
	Highest int  // the highest number that an event's descriptor had so far
}

// Beat tells the holder that we are well; how often it must, Heart says. It
// never waits. That the holder is gone, it leaves to Gone to say.
func (h *Holder) Beat(p Pulse) {
	m := message{op: opBeat, b: uint64(p.Highest)}
	if p.Armed {
		m.a = 1
	}
	if raw, err := h.socket.SyscallConn(); err == nil {
		_ = raw.Write(func(fd uintptr) bool {
			_ = send(int(fd), m)
			return true
		})
	}
}

// Gone is closed when the holder process has ended.
func (h *Holder) Gone() <-chan struct{} { return h.gone }

// PID is the number of the process.
func (h *Holder) PID() int { return h.process.Pid() }

// Unlocked tells why the holder's memory may be swapped out; nil where it may
// not.
func (h *Holder) Unlocked() error { return h.unlocked }

// Handle is the process (pidfd_open(2)). It stays open until End.
func (h *Holder) Handle() *os.File { return h.handle }

// Disarmed is at its end when the holder lets everybody go on: it has seen that
// we are dead, or is so itself. It stays open until End.
func (h *Holder) Disarmed() *os.File { return h.disarmed }

// End ends the holder, and with it the filters that nobody else has.
func (h *Holder) End() {
	_ = h.ask(message{op: opEnd})
	h.discard()
}

// discard ends the holder in any case.
func (h *Holder) discard() {
	h.socket.Close()
	defer h.relieve()
	if h.process != nil {
		h.kill(100 * time.Millisecond)
	}
	if h.handle != nil {
		h.handle.Close()
	}
	if h.disarmed != nil {
		h.disarmed.Close()
	}
}

// kill waits a while, kills, and waits.
func (h *Holder) kill(wait time.Duration) {
	select {
	case <-h.gone:
		return
	case <-time.After(wait):
	}
	h.process.Kill()
	<-h.gone
}

// ask sends a question and waits for its answer. A holder that does not give it
// would give none to the next agent either.
func (h *Holder) ask(m message, files ...int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	m.seq = h.seq
	if err := h.socket.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return lost(err)
	}
	defer func() { _ = h.socket.SetDeadline(time.Time{}) }()
	err := h.write(m)
	if err == nil && len(files) > 0 {
		err = h.write(message{op: opFiles, seq: m.seq}, files...)
	}
	var r message
	if err == nil {
		r, err = reply(h.socket, m.seq)
	}
	if err != nil {
		h.kill(0)
		return lost(err)
	}
	if r.a != 0 {
		return syscall.Errno(r.a)
	}
	return nil
}

func (h *Holder) write(m message, files ...int) error {
	var rights []byte
	if len(files) > 0 {
		rights = syscall.UnixRights(files...)
	}
	_, _, err := h.socket.WriteMsgUnix(m.bytes(), rights, nil)
	return err
}
