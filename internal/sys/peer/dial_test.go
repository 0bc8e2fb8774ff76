package peer

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Who connects is seen as whom it said, by many at once, and stays itself.
func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for p := filepath.Dir(path); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Fatal("not root")
	}
	if pid, err := Listener(path); err != nil || pid != os.Getpid() {
		t.Errorf("process %d listens, %v", pid, err)
	}
	if c, err := l.Accept(); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	var mu sync.Mutex
	seen := map[int]int{}
	var wait sync.WaitGroup
	const each = 20
	for uid := range 5 {
		for range each {
			wait.Go(func() {
				c, err := Dial(t.Context(), path, 1000*uid)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_, _ = c.Read(make([]byte, 1)) // until the other end has looked
			})
		}
	}
	for range 5 * each {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		pid, uid, err := Of(c.(*net.UnixConn))
		if err != nil || pid != os.Getpid() {
			t.Errorf("process %d, %v", pid, err)
		}
		mu.Lock()
		seen[uid]++
		mu.Unlock()
		c.Close()
	}
	wait.Wait()
	for uid := range 5 {
		if seen[1000*uid] != each {
			t.Errorf("users %v", seen)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "mine"), nil, 0o600); err != nil || os.Geteuid() != 0 {
		t.Errorf("afterwards: %v", err)
	}
}

// A listener that does not accept is waited for as long as the context says.
func TestDialFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := Dial(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if pid, err := Listener(path); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("process %d, %v", pid, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, path, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := Dial(t.Context(), path+"s", 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
