// Package guard keeps file systems from staying frozen. A guard is a child
// process that is started before anything is frozen and has everything it
// needs: descriptors of the volumes, memory that is locked, no disk to read
// from. It thaws the volumes when its parent dies or is late, and ends its
// parent when that stops answering; and a process that is to act when the parent
// is dead, where it does not. It knows two actions, thaw and kill, and a
// time for each; not why anything is frozen.
//
// The kernel helps with none of this: what a process froze stays frozen when
// it dies, and there is no limit of time (fs/super.c). Whoever then writes to
// the volume hangs, and that may soon be every process of the machine.
//
// # What it can and cannot do
//
// It thaws within a millisecond or so when the parent is killed, stopped
// beyond its time, or late. Freezing itself cannot be cut short: while the
// parent waits in it, there is nothing to thaw. The guard then goes on
// trying until the parent says that it is done, or has died. A parent that was
// killed while one of its threads waits for the frozen volume dies only after
// the thaw. The guard watches one that does nothing else (Linux 6.9), and so
// knows before; on older kernels it then acts at the deadline.
//
// A guard that is itself killed protects nobody. It has its own session, so
// that no terminal stops it, ignores the signals that ask to end, and asks to
// be spared when memory is short. Whoever ends all processes of a service at
// once, as systemd does after its patience is over, ends it too, perhaps
// before the parent: a unit should have KillMode=process.
//
// # After that
//
// When the parent has died, everything is thawed, and nobody waits for anything any
// more, a guard can do one thing else before it ends, if it was told so: a Duty.
package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/sys/process"
	"stillpoint/internal/tool"
)

// ErrGone says that there is no guard any more, or none that answers: nothing
// may be frozen, and what is frozen must be thawed.
var ErrGone = errors.New("the guard process is gone")

// answerTime is how long a guard may take to answer. It has nothing else to do.
const answerTime = 5 * time.Second

// A Guard is the parent's end. Its methods may be called from several
// goroutines.
type Guard struct {
	process *tool.Process
	socket  *os.File
	relieve func() // the sentinel
	gone    chan struct{}

	mu  sync.Mutex // one question at a time
	seq uint32
}

// A question goes to the guard, a reply comes back: fixed sizes, one message
// each. A beat and a close have none.
type op uint32

const (
	opReady      op = iota // the guard's first message
	opWatch                // the next message from the parent that is a descriptor brings it
	opVolume               // with a descriptor; this one is answered
	opFollow               // the next message that has descriptors is opFollowed
	opFollowed             // with two; this one is answered
	opBequeath             // the next message that has a descriptor is opBequeathed
	opBequeathed           // with one; this one is answered
	opUnwatch
	opHold
	opDone
	opHeart
	opBeat
	opClose
)

const (
	questionSize = 16 // op, number, limit in ns
	replySize    = 12 // number, errno, whether it has thawed
)

var native = binary.NativeEndian

// Start starts a guard. When it returns, the guard is ready.
func Start() (*Guard, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", os.NewSyscallError("socketpair", err))
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "guard"), os.NewFile(uintptr(pair[1]), "guard")
	defer theirs.Close()
	me, err := process.Handle()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start guard: %w", err)
	}
	defer me.Close()
	sentinel, relieve, err := process.Sentinel()
	if err != nil {
		sentinel = me
	} else {
		defer sentinel.Close()
	}
	p, err := tool.Self(programName, environment(), theirs, me, sentinel)
	if err != nil {
		relieve()
		ours.Close()
		return nil, fmt.Errorf("start guard: %w", err)
	}
	g := &Guard{process: p, socket: ours, relieve: relieve, gone: make(chan struct{})}
	go func() {
		_ = p.Wait()
		close(g.gone)
	}()
	if err = g.socket.SetReadDeadline(time.Now().Add(2 * answerTime)); err == nil {
		_, err = g.reply(0)
	}
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return g, nil
}

// Watch gives the guard a descriptor of a volume that may be frozen, not one
// of O_PATH. From now on the guard keeps the volume mounted.
func (g *Guard) Watch(volume *os.File) error {
	if _, err := g.ask(opWatch, 0, volume); err != nil {
		return fmt.Errorf("guard %s: %w", volume.Name(), err)
	}
	return nil
}

// Follow makes the guard see to it that a process acts when this one is dead,
// or is killed by the guard: it is killed as well unless disarmed, the end of a
// pipe, tells within a moment, by being at its end, that it has. It takes the
// place of one that was followed before.
func (g *Guard) Follow(handle, disarmed *os.File) error {
	if _, err := g.ask(opFollow, 0, handle, disarmed); err != nil {
		return fmt.Errorf("guard with another process: %w", err)
	}
	return nil
}

// Unwatch makes the guard forget all volumes. They must be thawed.
func (g *Guard) Unwatch() error {
	if _, err := g.ask(opUnwatch, 0); err != nil {
		return fmt.Errorf("guard no more: %w", err)
	}
	return nil
}

// Hold begins the time in which the watched volumes may be frozen: when the
// limit is over before Done is called, or we die, all of them are thawed, and again
// should one be frozen after that. It returns when the guard knows.
func (g *Guard) Hold(limit time.Duration) error {
	if _, err := g.ask(opHold, limit); err != nil {
		return fmt.Errorf("guard for %v: %w", limit, err)
	}
	return nil
}

// Done ends what Hold began; the volumes are thawed by then. It tells whether
// we were late and the guard has thawed one.
func (g *Guard) Done() (late bool, err error) {
	late, err = g.ask(opDone, 0)
	if err != nil {
		return late, fmt.Errorf("end guarded time: %w", err)
	}
	return late, nil
}

// Heart sets the longest time that may pass between two calls of Beat. When
// one does not come, this process is killed and all volumes are thawed. With 0
// Beat need not be called.
func (g *Guard) Heart(limit time.Duration) error {
	if _, err := g.ask(opHeart, limit); err != nil {
		return fmt.Errorf("guard with heartbeat of %v: %w", limit, err)
	}
	return nil
}

// Beat says that we are well. It never waits. That the guard is gone, it
// leaves to the other calls to say.
func (g *Guard) Beat() {
	if raw, err := g.socket.SyscallConn(); err == nil {
		_ = raw.Write(func(fd uintptr) bool {
			_ = send(fd, opBeat, 0, 0, nil)
			return true
		})
	}
}

// Gone is closed when the guard process has ended.
func (g *Guard) Gone() <-chan struct{} { return g.gone }

// Close ends the guard. It thaws what was still held.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.write(opClose, 0)
	_ = g.socket.Close() // this, too, makes it end
	defer g.relieve()
	select {
	case <-g.gone:
	case <-time.After(answerTime):
		g.process.Kill()
		<-g.gone
	}
	return nil
}

// ask sends a question and waits for its answer.
func (g *Guard) ask(what op, limit time.Duration, files ...*os.File) (thawed bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seq++
	if err := g.socket.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return false, lost(err)
	}
	// Or no beat would be sent any more once that time is over.
	defer func() { _ = g.socket.SetDeadline(time.Time{}) }()
	err = g.write(what, limit)
	if err == nil && len(files) > 0 {
		err = g.write(what+1, 0, files...) // opVolume, opFollowed, opBequeathed
	}
	if err != nil {
		return false, err
	}
	return g.reply(g.seq)
}

func (g *Guard) write(what op, limit time.Duration, files ...*os.File) error {
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = syscall.UnixRights(fds...)
	}
	raw, err := g.socket.SyscallConn()
	if err != nil {
		return lost(err)
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = send(fd, what, g.seq, limit, rights)
		return sent != syscall.EAGAIN
	})
	if err = errors.Join(err, sent); err != nil {
		return lost(err)
	}
	return nil
}

func send(fd uintptr, what op, seq uint32, limit time.Duration, rights []byte) error {
	var b [questionSize]byte
	native.PutUint32(b[:], uint32(what))
	native.PutUint32(b[4:], seq)
	native.PutUint64(b[8:], uint64(limit))
	for {
		err := syscall.Sendmsg(int(fd), b[:], rights, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err
		}
	}
}

// reply waits for the answer with the number seq. Others are late answers to questions that
// were given up.
func (g *Guard) reply(seq uint32) (thawed bool, err error) {
	var b [replySize]byte
	for {
		n, err := g.socket.Read(b[:])
		if err == nil && n != replySize {
			err = fmt.Errorf("a reply of %d bytes", n)
		}
		if err != nil {
			return false, lost(err)
		}
		if native.Uint32(b[:]) != seq {
			continue
		}
		if errno := syscall.Errno(native.Uint32(b[4:])); errno != 0 {
			return false, errno
		}
		return native.Uint32(b[8:]) != 0, nil
	}
}

func lost(err error) error { return fmt.Errorf("%w: %w", ErrGone, err) }
