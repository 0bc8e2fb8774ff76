package snapshottest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// Running writers make numbered steps, one after the other. Step n is of the
// kind n mod kinds and leaves a trace with its number, so that from what a
// snapshot shows it can be told which steps are in it. A step becomes visible
// at one point: a record complete, a rename, an unlink.
const (
	appendRecord    = iota // to "log"
	writeSlot              // of "slots"
	directSlot             // of "direct", past the page cache
	mapSlot                // of "mapped", by a shared mapping
	replaceFile            // "current", by a rename over it
	makeFile               // "made-N"
	removeFile             // the "made-N" of some steps ago
	makeDirectory          // "directory-N" with a file, by a rename
	removeDirectory        // the "directory-N" of some steps ago, by a rename
	kinds
)

const (
	recordSize = 512
	slotSize   = 4096
	slots      = 16
	keep       = 3 * kinds // steps, and one, from a name's making to its removal
)

// writersPerVolume is how many work on each volume.
const writersPerVolume = 3

// A mode says what a writer does to make a step durable before the next.
type mode bool

const (
	durable   mode = true  // fsync of all that it changed
	undurable mode = false // nothing; and no mappings, nothing direct
)

// A history knows when the steps of a writer began and ended, by a clock that
// all writers share.
type history struct {
	mu         sync.Mutex
	begin, end []uint64 // by step; the first is step 0, which there is not
}

func (h *history) began(clock *atomic.Uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin = append(h.begin, clock.Add(1))
}

// stepsBefore is how many steps had begun, and had ended, at a time.
func (h *history) stepsBefore(time uint64) (begun, ended int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	begun, _ = slices.BinarySearch(h.begin[1:], time)
	ended, _ = slices.BinarySearch(h.end[1:], time)
	return begun, ended
}

// beginning is when a step began.
func (h *history) beginning(step int) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.begin[step]
}

func (h *history) ended(clock *atomic.Uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end = append(h.end, clock.Add(1))
}

// A writer works in a directory.
type writer struct {
	dir     string
	mode    mode
	history history

	log, slots, direct, mapped, folder *os.File
	mapper                             *mapper // of mapped
	buffer                             []byte
}

// A team is all writers on some volumes.
type team struct {
	clock   atomic.Uint64
	writers [][]*writer // by volume
}

// startWriters starts writers on all volumes. stop ends them, and may be
// called twice.
func (c *C) startWriters(vs []Volume, m mode) (stop func()) {
	_, stop = c.startTeam(vs, m)
	return stop
}

func (c *C) startTeam(vs []Volume, m mode) (*team, func()) {
	c.Helper()
	t := &team{}
	for v := range vs {
		var ws []*writer
		for i := range writersPerVolume {
			w := &writer{dir: filepath.Join(vs[v].Dir, fmt.Sprint("writer", i)), mode: m}
			if i == 0 {
				c.folder(w.dir)
			} else {
				c.must(os.Mkdir(w.dir, 0o755))
			}
			c.must(w.open(c))
			ws = append(ws, w)
		}
		t.writers = append(t.writers, ws)
	}
	var quit atomic.Bool
	var all sync.WaitGroup
	errs := make(chan error, len(vs)*writersPerVolume)
	for _, ws := range t.writers {
		for _, w := range ws {
			all.Go(func() {
				if err := w.run(&t.clock, &quit, c.host.Write); err != nil {
					errs <- fmt.Errorf("writer in %s: %w", w.dir, err)
				}
			})
		}
	}
	var once sync.Once
	stop := func() {
		once.Do(func() {
			quit.Store(true)
			all.Wait()
			for _, ws := range t.writers {
				for _, w := range ws {
					if err := w.close(); err != nil {
						c.Error(err)
					}
				}
			}
			close(errs)
			for err := range errs {
				c.Error(err)
			}
		})
	}
	c.Cleanup(stop)
	return t, stop
}

// open makes the writer's files, in a state of no steps.
func (w *writer) open(c *C) error {
	w.buffer = c.aligned(slotSize, 0)
	w.history = history{begin: []uint64{0}, end: []uint64{0}}
	direct := 0
	if w.mode == durable {
		direct = syscall.O_DIRECT | syscall.O_DSYNC
	}
	for _, f := range []struct {
		file  **os.File
		name  string
		flags int
		size  int64
	}{
		{&w.log, "log", os.O_APPEND, 0},
		{&w.slots, "slots", 0, slots * slotSize},
		{&w.direct, "direct", direct, slots * slotSize},
		{&w.mapped, "mapped", 0, slots * slotSize},
	} {
		flags := os.O_CREATE | os.O_EXCL | os.O_RDWR | f.flags
		path := filepath.Join(w.dir, f.name)
		var err error
		*f.file, err = os.OpenFile(path, flags, 0o644)
		if errors.Is(err, syscall.EINVAL) { // no O_DIRECT there
			*f.file, err = os.OpenFile(path, flags&^syscall.O_DIRECT&^os.O_EXCL, 0o644)
		}
		if err != nil {
			return err
		}
		if f.size > 0 {
			if err := os.WriteFile(path, make([]byte, f.size), 0); err != nil {
				return err
			}
		}
	}
	var err error
	if w.folder, err = os.Open(w.dir); err != nil {
		return err
	}
	for _, f := range []*os.File{w.log, w.slots, w.direct, w.mapped, w.folder} {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Dir(w.dir)); err != nil || w.mode == undurable {
		return err
	}
	if w.mapper, err = startMapper(c.ctx, w.mapped.Name()); err != nil {
		return err
	}
	c.Cleanup(w.mapper.end) // another writer may not begin
	return nil
}

func (w *writer) close() error {
	var err error
	if w.mapper != nil {
		err = w.mapper.close()
	}
	for _, f := range []*os.File{w.log, w.slots, w.direct, w.mapped, w.folder} {
		f.Close()
	}
	return err
}

// run makes steps until quit.
func (w *writer) run(clock *atomic.Uint64, quit *atomic.Bool, through func(func())) (err error) {
	for n := 1; !quit.Load(); n++ {
		w.history.began(clock)
		step := func() { err = w.step(n) }
		if through != nil {
			through(step)
		} else {
			step()
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
		w.history.ended(clock)
	}
	return nil
}

// numbered fills b with a number, so that a torn write can be told.
func numbered(b []byte, n int) []byte {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(n))
	}
	return b
}

// slotOf is where step n writes.
func slotOf(n int) int64 { return int64(n / kinds % slots) }

func (w *writer) step(n int) error {
	switch n % kinds {
	case appendRecord:
		_, err := w.log.Write(numbered(w.buffer[:recordSize], n))
		return w.done(err, w.log)
	case writeSlot:
		return w.slot(w.slots, n)
	case directSlot:
		return w.slot(w.direct, n)
	case mapSlot:
		if w.mode == undurable {
			return w.slot(w.mapped, n)
		}
		return w.done(w.mapper.store(n), w.mapped)
	case replaceFile:
		return w.put(n, "current")
	case makeFile:
		return w.put(n, fmt.Sprint("made-", n))
	case makeDirectory:
		return w.makeDirectory(n)
	}
	old := n - 1 - keep
	if old < 0 {
		return nil
	}
	if n%kinds == removeFile {
		return w.done(os.Remove(w.in(fmt.Sprint("made-", old))), w.folder)
	}
	if err := w.done(os.Rename(w.in(fmt.Sprint("directory-", old)), w.in("gone")), w.folder); err != nil {
		return err
	}
	return os.RemoveAll(w.in("gone"))
}

func (w *writer) in(name string) string { return filepath.Join(w.dir, name) }

// done makes f durable.
func (w *writer) done(err error, f *os.File) error {
	if err != nil || w.mode == undurable {
		return err
	}
	return f.Sync()
}

func (w *writer) slot(f *os.File, n int) error {
	_, err := f.WriteAt(numbered(w.buffer, n), slotOf(n)*slotSize)
	return w.done(err, f)
}

// put writes a file aside and gives it its name.
func (w *writer) put(n int, name string) error {
	f, err := os.Create(w.in("aside"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(numbered(w.buffer, n))
	if err := w.done(err, f); err != nil {
		return err
	}
	return w.done(os.Rename(w.in("aside"), w.in(name)), w.folder)
}

// makeDirectory makes a directory with a file aside and gives it its name.
func (w *writer) makeDirectory(n int) error {
	if err := os.Mkdir(w.in("aside-directory"), 0o755); err != nil {
		return err
	}
	f, err := os.Create(w.in("aside-directory/file"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(numbered(w.buffer[:recordSize], n))
	if err := w.done(err, f); err != nil {
		return err
	}
	if w.mode == durable {
		if err := syncDir(w.in("aside-directory")); err != nil {
			return err
		}
	}
	return w.done(os.Rename(w.in("aside-directory"), w.in(fmt.Sprint("directory-", n))), w.folder)
}
