package holder

import (
	"os"
	"syscall"
)

// open lets the next agent in, one at a time, and nobody else: it is root or
// our own user.
func (k *keeper) open() {
	fd, _, err := syscall.Accept4(doorFD, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	who, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	ours := err == nil && (who.Uid == 0 || int(who.Uid) == os.Geteuid())
	if !ours || k.client >= 0 || k.wait(fd) != nil {
		_ = syscall.Close(fd)
		return
	}
	k.client, k.welcome = fd, false
}

// serve takes one message of the next agent.
func (k *keeper) serve() {
	m, files, err := k.read(k.client)
	closeAll(files) // which it has no reason to send
	switch {
	case err == syscall.EAGAIN, err == syscall.EINTR:
		return
	case err != nil:
		k.shut() // it died, or has found that we do not understand each other
		return
	}
	switch {
	case m.op == opHello:
		answer := message{op: opHello, seq: m.seq, name: version}
		switch {
		case m.name != version:
			answer.a = uint64(syscall.EPROTO)
		case !k.dead, !k.answered(): // it is not done
			answer.a = uint64(syscall.EBUSY)
		default:
			k.welcome = true
		}
		err = send(k.client, answer)
	case m.op == opTake && k.welcome:
		err = k.hand(m.seq)
	case m.op == opTaken && k.welcome:
		k.over = true
		k.release()
	default:
		err = syscall.EPROTO
	}
	if err != nil {
		k.shut()
	}
}

// hand passes all filters on. They are kept until the next agent says that it
// reads them.
func (k *keeper) hand(seq uint32) error {
	for _, f := range k.kept {
		m := message{op: opFilter, seq: seq, a: since(f.Since), name: f.Name}
		if err := send(k.client, m, f.fd, int(f.Mount.Fd())); err != nil {
			return err
		}
	}
	return send(k.client, message{op: opAll, seq: seq})
}

func (k *keeper) shut() {
	k.waitNot(k.client)
	_ = syscall.Close(k.client)
	k.client = -1
}
