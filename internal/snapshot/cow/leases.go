package cow

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/sys/inode"
	"stillpoint/internal/sys/opened"
	"stillpoint/internal/sys/process"
)

// The kernel opens a file for each event of it. Where somebody holds a lease for
// writing, that waits until the lease is given back, which its holder cannot do
// while it waits for the event: 45 seconds, as a rule. So files under such a
// lease make no events at all. They are copied under the freeze, as hot ones are,
// through a duplicate of the holder's descriptor, since nobody else can open
// them; what cannot be copied so is an exception. Leases for reading are in
// nobody's way: nobody can have the file open for writing then.

// leasesOn returns the files of a volume that have such a lease, by number.
func leasesOn(device uint64) (map[uint64]opened.Lease, error) {
	all, err := opened.Leases()
	if err != nil {
		return nil, fmt.Errorf("look for leases: %w", err)
	}
	here := map[uint64]opened.Lease{}
	for _, l := range all {
		if l.Write && l.Device == device {
			here[l.Inode] = l
		}
	}
	return here, nil
}

// shielded asks the kernel of open files whether they make events, but for
// those with a lease: the question would make one.
func shielded(p *opened.Prober, leased map[uint64]opened.Lease) func(fd int) bool {
	return func(fd int) bool {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) != nil {
			return false
		}
		if _, is := leased[st.Ino]; is {
			return false
		}
		emits, err := p.Emits(fd)
		return err == nil && emits
	}
}

// findLeases notes the files of the volume with a lease.
func (t *target) findLeases() (err error) {
	t.leased, err = leasesOn(t.device)
	return err
}

// ignoreLeased ends their events.
func (t *target) ignoreLeased() {
	for n, l := range t.leased {
		if !t.ignoreIndexed(n) {
			if fd, err := t.borrow(l, false); err == nil {
				_ = t.filter.events.Ignore(fd)
				syscall.Close(fd)
			}
		}
	}
}

// ignoreIndexed does so by the handle of a file, which needs nobody's help.
func (t *target) ignoreIndexed(number uint64) bool {
	in := t.builder.Inode(number)
	if in == nil {
		return false
	}
	fd, err := inode.Place(int(t.filter.root.Fd()), in.Handle)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return t.filter.events.IgnorePlace(fd) == nil
}

// borrow returns a duplicate of a descriptor that the holder of a lease has of
// the file. As long as it is open the lease cannot end, so that is for a moment
// only. Its position is the holder's, and must stay as it is.
func (t *target) borrow(l opened.Lease, read bool) (int, error) {
	ds, _ := process.DescriptorsInTime(l.PID, t.device)
	for _, d := range ds {
		if d.Ino != l.Inode || read && d.Flags&syscall.O_ACCMODE == syscall.O_WRONLY {
			continue
		}
		fd, ok := process.InTime(d.TID, func() int {
			fd, err := opened.Duplicate(d.TID, d.FD)
			if err != nil {
				return -1
			}
			return fd
		})
		if !ok || fd < 0 {
			continue
		}
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil && st.Ino == l.Inode && st.Dev == t.device {
			return fd, nil
		}
		syscall.Close(fd) // it is another file's by now
	}
	return -1, fmt.Errorf("%s (process %d) holds a lease on it, and has no descriptor to read it by", process.Name(l.PID), l.PID)
}

// copyLeased saves all of the files under a lease, and returns how much that
// was. What is borrowed is given back after the thaw: it may be the last
// descriptor of a deleted file by then. The volume is frozen.
func (t *target) copyLeased(ctx context.Context) (size int64) {
	for n, l := range t.leased {
		in := t.index.Inode(n)
		if in == nil || !in.IsRegular() {
			continue
		}
		if size+in.Size > t.set.p.o.Hot {
			t.shield.Refuse(n, problem.FileUnreadable, fmt.Sprintf(
				"%s (process %d) holds a lease on it, and it is too large to be copied while the volume stands still", process.Name(l.PID), l.PID))
			continue
		}
		fd, err := t.borrow(l, true)
		if err != nil {
			t.shield.Refuse(n, problem.FileUnreadable, err.Error())
			continue
		}
		t.borrowed.add(fd)
		t.shield.SaveThrough(ctx, n, fd)
		size += in.Size
	}
	return size
}

// borrowed is what copyLeased has borrowed. Resume can come while it does so.
type borrowed struct {
	mu  sync.Mutex
	fds []int
}

func (b *borrowed) add(fd int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fds = append(b.fds, fd)
}

func (b *borrowed) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fd := range b.fds {
		syscall.Close(fd)
	}
	b.fds = nil
}

// unleased are those of the numbers of hot files that have no lease.
func (t *target) unleased(us []hot.Use) (all []uint64) {
	for _, n := range inodes(us) {
		if _, leased := t.leased[n]; !leased {
			all = append(all, n)
		}
	}
	return all
}
