package holder

import (
	"os"
	"os/signal"
	"syscall"
)

// near is how far beyond the highest number known the answers begin: an event
// that was read at the last moment is not known of.
const near = 1024

// piece is after how many numbers it is looked what else there is to do: all
// that there can be take half a second and more for each filter.
const piece = 4096

// die lets everybody go on in the place of an agent that is about to die, or
// all of which has died.
func (k *keeper) die(all bool) {
	k.dying = true
	k.disarm()
	if !k.disarmed {
		k.disarmed = true
		_ = syscall.Close(quietFD)
	}
	for _, f := range k.kept {
		_ = k.wait(f.fd) // who comes from now on
	}
	if !all || k.dead {
		return
	}
	k.dead, k.since = true, k.now()
	// Now this says: nobody comes any more.
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	go func() {
		<-told
		os.Exit(0)
	}()
}

// answered tells whether whatever the dead agent had read is answered, also what
// had a higher number than was told.
func (k *keeper) answered() bool { return !k.dead || k.next >= k.most }

// answerMore goes on with that, by a piece.
func (k *keeper) answerMore() {
	if k.answered() {
		return
	}
	to := min(k.next+piece, k.most)
	for _, f := range k.kept {
		_ = f.Group.AllowNumbers(k.next, to)
	}
	k.next = to
}

// disarm lets events come no more, and answers those there are. It is done
// again and again, until the last thread is dead, which may take as long as a disk
// does: one that is killed inside of the kernel may still read an event.
func (k *keeper) disarm() {
	k.last = k.now()
	for _, f := range k.kept {
		_ = f.Group.Disarm(f.Mount)
	}
	for _, f := range k.kept {
		_ = f.Group.AllowNumbers(0, min(k.highest+near, k.most))
		_ = f.Group.AllowAll(k.buffer)
	}
}

// letGo answers the events of one group.
func (k *keeper) letGo(fd int) {
	for _, f := range k.kept {
		if f.fd == fd {
			_ = f.Group.AllowAll(k.buffer)
		}
	}
}

// release lets go of all filters: the next agent has them, or nobody shall.
func (k *keeper) release() {
	for _, f := range k.kept {
		_ = f.Close()
	}
	k.kept = nil
}
