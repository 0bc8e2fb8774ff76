package sqlite

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/aide"
)

// A Writer knows SQLite databases. All that are at rest at the same time are
// held by one helper process.
type Writer struct {
	options Options

	mu       sync.Mutex
	aide     *aide.Aide // while there are sessions
	sessions int
}

// New makes a writer.
func New(o Options) *Writer { return &Writer{options: o} }

// Name is "sqlite".
func (*Writer) Name() string { return name }

// Discover looks for databases below the selected paths, on the file system of
// each. It follows no links and opens nothing but regular files whose size
// could be a database's; a file with several names is found by one of them.
func (w *Writer) Discover(ctx context.Context, s writer.Scope) ([]writer.Instance, error) {
	f := &finding{seen: map[inode]bool{}}
	var errs []error
	for _, path := range s.Paths {
		errs = append(errs, f.below(ctx, path))
	}
	slices.SortFunc(f.found, func(a, b *instance) int { return cmp.Compare(a.about.ID, b.about.ID) })
	all := make([]writer.Instance, len(f.found))
	for i, in := range f.found {
		in.writer = w
		all[i] = in
	}
	return all, errors.Join(errs...)
}

// A finding is a Discover under way.
type finding struct {
	found []*instance
	seen  map[inode]bool // files and folders
}

type inode struct{ dev, ino uint64 }

// below looks below one path.
func (f *finding) below(ctx context.Context, root string) error {
	top, err := file.Stat(file.Here, root, known)
	if err != nil {
		return ignoreGone(err)
	}
	if made, err := ofKernel(root); made || err != nil {
		return ignoreGone(err)
	}
	var errs []error
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return problem.New(problem.WriterTimeout, root, context.Cause(ctx))
		}
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			var skip bool
			if skip, err = f.look(path, d, top.Device); skip {
				return fs.SkipDir
			}
		}
		if err != nil {
			errs = append(errs, ignoreGone(err))
		}
		if len(f.found) > most {
			f.found = f.found[:most]
			return problem.Newf(problem.WriterResources, root, "there are more than %d databases, which are too many for one capture", most)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// known is how files are asked: what is mounted below is another file system, and may be
// one whose server does not answer any more. So no server is asked anything.
const known = file.NoFollow | file.NoAutomount | file.Cached

// look looks at one file or folder, and tells whether to go no further into it.
func (f *finding) look(path string, d fs.DirEntry, dev uint64) (skip bool, err error) {
	info, err := file.Stat(file.Here, path, known)
	if err != nil {
		return false, err
	}
	if info.Device != dev {
		return d.IsDir(), nil
	}
	key := inode{dev, info.Inode}
	if f.seen[key] {
		return d.IsDir(), nil
	}
	if d.IsDir() {
		f.seen[key] = true
		return false, nil
	}
	if info.Size < smallest || info.Size%smallest != 0 {
		return false, nil
	}
	h, ok, err := read(path)
	if ok && err == nil {
		f.seen[key] = true
		f.found = append(f.found, describe(path, h))
	}
	return false, err
}

// read reads the header of a file.
func read(path string) (h header, ok bool, err error) {
	opened, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return h, false, err
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return h, false, err
	}
	b := make([]byte, headerSize)
	if _, err := opened.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return h, false, err
	}
	h, ok = parse(b, info.Size())
	return h, ok, nil
}

// ignoreGone forgets the error of what has just been deleted.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	return err
}

// Numbers of file systems that have no files of anybody's
// (include/uapi/linux/magic.h).
var kernels = []int64{
	0x9fa0,     // proc
	0x62656572, // sysfs
	0x27e0eb,   // cgroup
	0x63677270, // cgroup2
	0x64626720, // debugfs
	0x74726163, // tracefs
	0x73636673, // securityfs
	0x1cd1,     // devpts
	0xcafe4a11, // bpf
	0x62656570, // configfs
	0x6165676c, // pstore
	0xde5e81e4, // efivarfs
	0x19800202, // mqueue
}

func ofKernel(path string) (bool, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return slices.Contains(kernels, int64(st.Type)), nil
}

// hold returns the helper process for one more session.
func (w *Writer) hold(ctx context.Context) (*aide.Aide, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aide != nil {
		select {
		case <-w.aide.Gone():
			w.aide.Close()
			w.aide = nil
		default:
		}
	}
	if w.aide == nil {
		a, err := aide.Start(ctx, program)
		if err != nil {
			return nil, err
		}
		w.aide, w.sessions = a, 0
	}
	w.sessions++
	return w.aide, nil
}

// leave ends what hold began. The last one ends the process.
func (w *Writer) leave(a *aide.Aide) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.aide != a {
		return // it was replaced
	}
	if w.sessions--; w.sessions == 0 {
		a.Close()
		w.aide = nil
	}
}
