package fanotify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Of many who wait for events, an event wakes one, the next one another, and
// the end of the group all.
func TestOneIsWoken(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		const many = 6
		fs := openDir(t, dir)
		p := newGroup(t)
		must(t, p.Watch(fs))
		f := create(t, dir+"/file", 4096)
		must(t, p.Arm(fs))
		woken := make(chan error, many)
		for range many {
			go func() { woken <- p.using(p.wait) }()
		}
		for end := time.Now().Add(20 * time.Second); waiting(p) < many; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d wait", waiting(p), many)
			}
		}
		for range 2 {
			written := make(chan error, 1)
			go func() {
				_, err := unix.Pwrite(int(f.Fd()), []byte("x"), 0)
				written <- err
			}()
			must(t, <-woken)
			select {
			case err := <-woken:
				t.Fatalf("an event has woken two: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			events, err := p.Read(NewBuffer(1))
			must(t, err)
			must(t, p.Allow(events[0]))
			must(t, <-written)
		}
		must(t, p.Close())
		for range many - 2 {
			if err := <-woken; !errors.Is(err, os.ErrClosed) {
				t.Errorf("at the end: %v", err)
			}
		}
	})
}

// waiting is how many threads of this process sleep in a call whose first
// argument is a descriptor of epoll that has the group in it.
func waiting(p *Permission) (n int) {
	calls, _ := filepath.Glob("/proc/self/task/*/syscall")
	for _, path := range calls {
		b, _ := os.ReadFile(path)
		args := strings.Fields(string(b))
		if len(args) < 2 {
			continue // running
		}
		fd, err := strconv.ParseInt(args[1], 0, 64)
		if err != nil {
			continue
		}
		info, _ := os.ReadFile(fmt.Sprint("/proc/self/fdinfo/", fd))
		for line := range strings.Lines(string(info)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "tfd:" && f[1] == strconv.Itoa(p.fd) {
				n++
			}
		}
	}
	return n
}
