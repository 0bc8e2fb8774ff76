package holder

import (
	"os"
	"syscall"

	"stillpoint/internal/sys/fanotify"
)

// receive takes one message of the agent.
func (k *keeper) receive() {
	m, files, err := k.read(socketFD)
	switch {
	case err == syscall.EAGAIN, err == syscall.EINTR:
		return
	case err != nil: // it is dead, or ends
		k.waitNot(socketFD)
		k.closed = true
		if !k.dead {
			k.since = k.now()
		}
		return
	}
	switch m.op {
	case opKeep:
		k.incoming = append(k.incoming, m)
	case opFiles:
		k.answer(m.seq, k.keep(m.seq, files))
		return
	case opForget:
		k.forget(m.name)
		k.answer(m.seq, nil)
	case opBeat:
		k.armed, k.highest = m.a != 0, max(k.highest, int(m.b))
		k.beatTo = k.now() + k.heart()
	case opEnd:
		k.over = true
		k.release()
		k.answer(m.seq, nil)
	}
	closeAll(files)
}

func (k *keeper) answer(seq uint32, err error) {
	_ = send(socketFD, message{op: opReply, seq: seq, a: uint64(errnoOf(err))})
}

// read reads one message.
func (k *keeper) read(fd int) (m message, files []int, err error) {
	var b [fixed + nameMost]byte
	var rights [64]byte
	n, nr, _, _, err := syscall.Recvmsg(fd, b[:], rights[:], syscall.MSG_CMSG_CLOEXEC|syscall.MSG_DONTWAIT)
	if err != nil {
		return m, nil, err
	}
	files = descriptors(rights[:nr])
	if m, err = parse(b[:n]); err != nil { // n is 0 at the end
		closeAll(files)
		return m, nil, syscall.EPIPE
	}
	return m, files, nil
}

// keep takes a filter whose name was announced.
func (k *keeper) keep(seq uint32, files []int) error {
	for i, m := range k.incoming {
		if m.seq != seq || len(files) != 2 {
			continue
		}
		k.incoming = append(k.incoming[:i], k.incoming[i+1:]...)
		k.forget(m.name)
		k.most = max(k.most, int(m.b))
		if k.beatTo == 0 { // from now on it can be missed
			k.beatTo = k.now() + k.heart()
		}
		group, err := fanotify.AdoptDescriptor(files[0])
		if err != nil {
			_ = syscall.Close(files[1])
			return err
		}
		k.kept = append(k.kept, &kept{Filter{m.name, sinceOf(m.a), group, os.NewFile(uintptr(files[1]), m.name)}, files[0]})
		if k.dying { // since it has sent this
			k.die(false)
			k.next = 0
		}
		return nil
	}
	closeAll(files)
	return syscall.EBADMSG
}

func (k *keeper) forget(name string) {
	for i, f := range k.kept {
		if f.Name == name {
			_ = f.Close()
			k.kept = append(k.kept[:i], k.kept[i+1:]...)
			return
		}
	}
}
