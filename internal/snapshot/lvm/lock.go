package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// lockName is what a process holds while it takes away what another one has left: a
// guard and the next start of the program may do so at the same time, and a device
// that one of them has found, and the other one removed, has a number that may be
// anybody's by then.
const lockName = "/run/stillpoint/lvm.lock"

// lockLeftovers waits for others who take leftovers away.
func lockLeftovers(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for {
		if err := os.MkdirAll(filepath.Dir(lockName), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = file.Lock(int(f.Fd()))
		if err == nil && isAt(f, lockName) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, problem.New(problem.Busy, lockName, fmt.Errorf("another process of Stillpoint holds it: %w", ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// isAt tells whether a file has its name still: systemd removes the folder when it ends
// the agent, whoever is at work there.
func isAt(f *os.File, name string) bool {
	there, err := os.Stat(name)
	here, herr := f.Stat()
	return err == nil && herr == nil && os.SameFile(there, here)
}
