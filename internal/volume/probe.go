package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/sys/blockdev"
)

// Roots are the places that a Table is read from. Recorded hosts have them in
// a scratch directory.
type Roots struct {
	Proc  string // "/proc"
	Sys   string // "/sys"
	Dev   string // "/dev"; links are followed, nodes are not opened but through Probe
	Udev  string // "/run/udev/data"
	Probe Probe
}

// A Probe answers what only a live host can. Its methods may block for ever,
// when a server or a device is dead: a Table waits for them for a while only.
// They are called from several goroutines.
type Probe interface {
	// Locate returns the path that path leads to, symbolic links followed,
	// and the ID of the mount that shows it, or 0 where that is not known.
	Locate(path string) (canonical string, mount int, err error)

	// FileSystem asks the file system that a mount shows at its point, and
	// fails when another mount covers it.
	FileSystem(point string, mount int) (Facts, error)

	// Superblock reads UUID and label from a device. Both are empty where
	// it recognises nothing.
	Superblock(node, number string) (uuid, label string, err error)

	// PartitionType reads the type of a partition from the GPT of its disk;
	// empty where there is none.
	PartitionType(disk, number string, partition int) (string, error)
}

// Facts are what a mounted file system says about itself.
type Facts struct {
	Size, Free, Used uint64
	UUID, Label      string // empty where it has none, or does not say
	Final            bool   // an empty UUID means that it has none
}

// Host returns the roots of this host.
func Host() Roots {
	return Roots{Proc: "/proc", Sys: "/sys", Dev: "/dev", Udev: "/run/udev/data", Probe: host{}}
}

// host asks this host.
type host struct{}

func (host) Locate(path string) (string, int, error) { return blockdev.Locate(path) }

func (host) FileSystem(point string, mount int) (Facts, error) {
	fs, err := blockdev.Ask(point, mount)
	return Facts(fs), err
}

func (host) Superblock(node, number string) (uuid, label string, err error) {
	s, err := blockdev.ReadSuperblock(node, number)
	return s.UUID, s.Label, err
}

func (host) PartitionType(disk, number string, partition int) (string, error) {
	return blockdev.PartitionType(disk, number, partition)
}

// How long anything may take that can hang. A local file system answers in
// microseconds, whatever the disk does: the numbers are in memory.
const (
	answerLimit = 2 * time.Second // one answer while a table is read
	readLimit   = 5 * time.Second // all of them together
	locateLimit = 5 * time.Second // the lookup of a path, which may need a slow server
)

var errNoAnswer = errors.New("no answer")

// within waits for f, but not longer than limit and not after ctx is done. An
// f that hangs is left behind with its thread; nothing in Linux can end it.
func within[T any](ctx context.Context, limit time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if limit <= 0 {
		return none, fmt.Errorf("%w: no time left", errNoAnswer)
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		return none, fmt.Errorf("%w within %s", errNoAnswer, limit)
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
