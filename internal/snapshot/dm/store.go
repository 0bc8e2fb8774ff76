package dm

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/loop"
)

// A store is where the originals of one volume go: a cache file without a name,
// a loop device over it, and a device of ours over that, which hides its beginning
// and end. The file holds originals as they came, and the first of them may well
// be the beginning of the volume: nobody who looks at the loop device is to take
// it for the volume.
type store struct {
	file   *os.File
	dir    string // of the file, or the name of the room
	limits cachefile.Limits
	device dm.Device
	under  dm.Device // of a store in a room, which has no file
}

// margin is what is hidden at both ends: more than any file system, volume
// manager or RAID looks at there.
const margin = 1 << 20

const sector = 512

// makeStore makes a store, with the tag of its device, which the store has also after an
// error where it is there still. The file is as large as it may
// become, and takes room only as it is needed; some is reserved at once, so that a
// place that is already full fails here.
func makeStore(c *dm.Control, t tag, dir string, limits cachefile.Limits) (_ *store, err error) {
	s := &store{dir: dir, limits: limits}
	s.limits.Maximum = s.limits.Maximum / margin * margin
	fd, err := file.Open(file.Here, dir, file.Write|file.Unnamed|file.Forever)
	if err != nil {
		return nil, problem.New(codeOf(err), dir, fmt.Errorf("create a cache file: %w", err))
	}
	s.file = os.NewFile(uintptr(fd), dir)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(c))
		}
	}()
	if err := s.file.Truncate(s.limits.Maximum + 2*margin); err != nil {
		return s, problem.New(codeOf(err), dir, fmt.Errorf("size a cache file: %w", err))
	}
	if err := s.reserve(); err != nil {
		return s, problem.New(codeOf(err), dir, fmt.Errorf("reserve %d MiB for a cache file: %w", s.limits.Initial>>20, err))
	}
	over, err := loop.Attach(s.file)
	if err != nil {
		return s, problem.New(problem.CacheLost, dir, err)
	}
	defer over.Close() // the device above has it open
	table := []dm.Target{{Length: uint64(s.limits.Maximum / sector), Type: "linear", Params: fmt.Sprintf("%s %d", over.Number, margin/sector)}}
	if s.device, err = makeDevice(c, t, table, false); err != nil {
		return s, err
	}
	return s, nil
}

// reserve takes room before it is needed, where the file system can.
func (s *store) reserve() error {
	if s.limits.Initial <= 0 {
		return nil
	}
	for {
		err := syscall.Fallocate(int(s.file.Fd()), fallocKeepSize, margin, min(s.limits.Initial, s.limits.Maximum))
		if err == syscall.EOPNOTSUPP {
			return nil
		}
		if err != syscall.EINTR {
			return err
		}
	}
}

const fallocKeepSize = 1 // FALLOC_FL_KEEP_SIZE (linux/falloc.h)

// chunk is how much is kept at once, in sectors: 16 KiB, and so much more for a
// large store that the kernel's table of what it has, which is in its memory, does
// not grow beyond some 200 MB.
func (s *store) chunk() uint64 {
	const least, most = 16 << 10, 4 << 20
	n := int64(least)
	for s.limits.Maximum/n > most {
		n *= 2
	}
	return uint64(n / sector)
}

// free is what is left to others where the file lies.
func (s *store) free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(s.file.Fd()), &st); err != nil {
		return 0, fmt.Errorf("free space: %w", err)
	}
	return int64(st.Bavail) * st.Frsize, nil
}

// close removes the device; the loop device goes with it, and the file with that.
func (s *store) close(c *dm.Control) error {
	var errs []error
	if s.device.Number != (dm.Number{}) {
		err := removeDevice(c, s.device)
		if err == nil {
			s.device = dm.Device{}
		}
		errs = append(errs, err)
	}
	if s.file != nil {
		errs = append(errs, s.file.Close())
		s.file = nil
	}
	return errors.Join(errs...)
}

// codeOf tells a place without room from one that fails.
func codeOf(err error) problem.Code {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return problem.CacheFull
		}
	}
	return problem.CacheLost
}
