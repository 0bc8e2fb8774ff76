package servertest

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"

	"stillpoint/internal/sys/peer"
)

// Impostor listens at a socket as a user of the given number would, and lets a
// function talk to each who comes. It returns what all of them sent so far.
func Impostor(t testing.TB, path string, uid int, talk func(c net.Conn)) (heard func() string) {
	t.Helper()
	l, err := peer.Listen(path, uid)
	must(t, err)
	must(t, errors.Join(os.Chown(path, uid, uid), os.Chmod(path, 0o777)))
	var mu sync.Mutex
	var all []byte
	note := func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, b...)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				talk(&ear{c, note})
			})
		}
	})
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return string(all)
	}
}

// An ear is a connection of which all is noted that comes.
type ear struct {
	net.Conn
	note func([]byte)
}

func (e *ear) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	e.note(b[:n])
	return n, err
}
