package sqlite

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
)

// known are files of a subvolume of btrfs that are no databases by their size on
// the disk. To ask for each file by its name makes the kernel build an inode in
// memory, which is most of what a search costs where nobody has used the files of
// late; the disk's own list of inodes is read in a sixth of the time. But that has
// all files of the subvolume, and may be much longer than what is selected: so it
// is read for twice as long at most as the search has taken without.
//
// Whatever is not known is asked for by its name. So nothing is missed where the
// list cannot be read, or not to its end, and no file that is newer than the list.
// The disk must have what there was when the search began: hence the sync, which
// comes once more before the snapshot and has little to do then. What was made
// after it is in the list as an empty file until its size is on the disk, also
// after an fsync; so an empty one is not known.
type known struct {
	ctx    context.Context
	root   string
	device uint64
	began  time.Time
	asked  atomic.Int64 // files by their names

	mu   sync.RWMutex // who reads the list lets the others wait
	dir  *os.File     // the root, once all is on the disk and until the list is read
	next uint64       // the inode at which the list goes on
	took time.Duration
	no   numbers
}

// Few files are asked for without any list, and how long it takes is looked at now
// and then.
const (
	few   = 2000
	often = 100
	share = 2 // of the time without
)

// has tells whether a file is known to be no database.
func (k *known) has(inode uint64) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.no.has(inode)
}

// asking is called before a file is asked for by its name.
func (k *known) asking() {
	switch n := k.asked.Add(1); {
	case n == few:
		k.open()
	case n > few && n%often == 0:
		k.read()
	}
}

// open makes the list readable, if there is one.
func (k *known) open() {
	dir, err := os.OpenFile(k.root, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	if !k.listed(int(dir.Fd())) || file.SyncFS(int(dir.Fd())) != nil {
		dir.Close()
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dir = dir
}

// listed tells whether there is a list of what is looked through, and not of
// something that has been put or mounted at its path meanwhile.
func (k *known) listed(dir int) bool {
	kind, err := file.FSType(dir)
	if err != nil || kind != file.BtrfsFS {
		return false
	}
	info, err := file.Stat(dir, "", file.Itself)
	return err == nil && info.Device == k.device
}

// read reads some of the list, if it is time to.
func (k *known) read() {
	k.mu.Lock()
	defer k.mu.Unlock()
	began := time.Now()
	left := share*(began.Sub(k.began)-k.took) - k.took
	if k.dir == nil || left < k.took/2 {
		return
	}
	end, over := began.Add(left), false
	err := btrfs.Inodes(k.dir, k.next, k.note, func() bool {
		over = time.Now().After(end) || k.ctx.Err() != nil
		return !over
	})
	k.took += time.Since(began)
	if err != nil || !over {
		k.close()
	}
}

func (k *known) note(i btrfs.Inode) {
	k.next = i.Number + 1
	if file.Kind(i.Mode&kindBits) == file.Regular && i.Size > 0 && !sized(int64(i.Size)) {
		k.no.add(i.Number)
	}
}

const kindBits = 0o170000 // S_IFMT

func (k *known) close() {
	if k.dir != nil {
		k.dir.Close()
		k.dir = nil
	}
}

// numbers are a set of numbers that lie close together, or far apart where most
// files that once were are deleted.
type numbers map[uint64]*[8]uint64

func (s numbers) add(n uint64) {
	part := s[n>>9]
	if part == nil {
		part = new([8]uint64)
		s[n>>9] = part
	}
	part[n>>6&7] |= 1 << (n & 63)
}

func (s numbers) has(n uint64) bool {
	part := s[n>>9]
	return part != nil && part[n>>6&7]&(1<<(n&63)) != 0
}
