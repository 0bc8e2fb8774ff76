package index

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/inode"
)

// A reading is a look at names of one directory, in pieces.
type reading struct {
	dir   *Inode
	lead  *lead // of dir when it began
	fd    int   // keeps the number of dir from being used again
	whole bool  // what is not found is not there

	mu    sync.Mutex
	left  int // pieces
	found []Child
}

// none is the number of a name that is not there.
const none = 0

// read begins a reading of a whole directory.
func (w *worker) read(work *work, dir *Inode) error {
	r, err := w.begin(work, dir, true)
	if err != nil || r == nil {
		return err
	}
	if flags, err := file.Flags(r.fd); err == nil {
		w.b.table.setDirFlags(dir.Number, flags&dirFlags)
	}
	var names []string
	if r.lead != nil {
		for name := range r.lead.names {
			names = append(names, name)
		}
	} else if names, err = w.listed(r.fd); err != nil && !errors.Is(err, syscall.ENOENT) { // removed
		if !isDamage(err) {
			return err
		}
		w.b.fault(place{dir: dir.Number}, err)
	}
	return w.divide(work, r, names)
}

// names begins a reading of some names.
func (w *worker) names(work *work, dir uint64, noted map[string]struct{}) error {
	in := w.b.table.get(dir)
	if in == nil {
		return nil
	}
	r, err := w.begin(work, in, false)
	if err != nil || r == nil {
		return err
	}
	names := make([]string, 0, len(noted))
	for name := range noted {
		if _, wanted := r.lead.below(name); wanted {
			names = append(names, name)
		}
	}
	return w.divide(work, r, names)
}

// begin opens a directory; if it is not there any more there is no reading.
func (w *worker) begin(work *work, dir *Inode, whole bool) (*reading, error) {
	r := &reading{dir: dir, lead: w.b.leadOf(dir), whole: whole}
	mode := file.Place | file.Directory
	if whole {
		mode = file.Read | file.Directory | file.Quiet
	}
	fd, err := inode.Open(w.b.mount, dir.Handle, int(mode))
	switch {
	case err == nil:
		r.fd = fd
		work.began(r)
		return r, nil
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENOTDIR): // its number is used again
		w.b.empty(dir)
	case isDamage(err):
		w.b.fault(place{dir: dir.Number}, err)
	default:
		return nil, err
	}
	work.done(r, false)
	return nil, nil
}

// listed returns all names of an open directory.
func (w *worker) listed(fd int) ([]string, error) {
	var all []byte // so that the names take one allocation
	err := file.List(fd, w.list, func(name []byte, _ file.Kind, _ uint64) error {
		all = append(append(all, name...), 0)
		return nil
	})
	names := make([]string, 0, bytes.Count(all, []byte{0}))
	for text := string(all); len(text) > 0; {
		end := 0
		for text[end] != 0 {
			end++
		}
		names, text = append(names, text[:end]), text[end+1:]
	}
	return names, err
}

// divide divides a reading into pieces.
func (w *worker) divide(work *work, r *reading, names []string) error {
	if len(names) <= pieceSize {
		r.left = 1
		return w.piece(work, r, names)
	}
	var pieces []func(*worker) error
	for piece := range slices.Chunk(names, pieceSize) {
		pieces = append(pieces, func(w *worker) error { return w.piece(work, r, piece) })
	}
	r.left = len(pieces)
	work.add(pieces)
	return nil
}

// piece looks at names. The last one to do so ends the reading.
func (w *worker) piece(work *work, r *reading, names []string) error {
	found := make([]Child, 0, len(names))
	for _, name := range names {
		number, err := w.name(work, r, name)
		if err != nil {
			return err
		}
		found = append(found, Child{name, number})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, found...)
	if r.left--; r.left > 0 {
		return nil
	}
	return w.b.install(work, r)
}

// name looks at a name and returns its number.
func (w *worker) name(work *work, r *reading, name string) (uint64, error) {
	b := w.b
	fd, err := file.Open(r.fd, name, file.Place|file.Final)
	var s sight
	if err == nil {
		s, err = w.look(fd, spot{r.fd, name, file.NoFollow})
	}
	if s.isDir {
		next, _ := r.lead.below(name)
		if b.lead(s.in, next) || s.isNew {
			work.add(nil, s.in)
		}
	}
	var late *TooLateError
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOENT):
		return none, nil
	case isDamage(err):
		b.fault(place{r.dir.Number, name}, err)
		return none, nil
	case errors.As(err, &late):
		late.Dir = r.dir.Number
		return none, err
	default:
		return none, fmt.Errorf("index %q in directory inode %d: %w", name, r.dir.Number, err)
	}
	b.fault(place{r.dir.Number, name}, nil)
	return s.in.Number, nil
}

// install enters what a reading found into its directory.
func (b *Builder) install(work *work, r *reading) error {
	lock := b.lockOf(r.dir)
	lock.Lock()
	defer lock.Unlock()
	if b.leadOf(r.dir) != r.lead {
		work.done(r, true) // other names are wanted by now
		return r.end(b)
	}
	// A directory that changes while it is listed can show a name twice.
	slices.SortFunc(r.found, func(a, b Child) int { return cmp.Compare(a.Name, b.Name) })
	r.found = slices.CompactFunc(r.found, func(a, b Child) bool { return a.Name == b.Name })
	var removed, added []uint64
	r.dir.Children, removed, added = merge(r.dir.Children, r.found, r.whole)
	for _, number := range removed {
		b.removed(number, r.dir)
	}
	for _, number := range added {
		b.table.add(number, r.dir)
	}
	if !r.dir.indexed() { // the reading that found it may come later, or to nothing
		b.orphan(r.dir.Number)
	}
	work.done(r, false)
	return r.end(b)
}

// end closes the directory.
func (r *reading) end(b *Builder) error {
	if b.frozen { // it may have been removed
		return b.late.Keep(r.fd)
	}
	return file.Close(r.fd)
}
