package extents

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Files in one piece and in many; what is free, before and after.
func TestPieces(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			v := scratch.New(t, fs, 320*scratch.MiB)
			f, err := os.Create(filepath.Join(v.Dir, "file"))
			must(t, err)
			defer f.Close()
			if n, _, err := Of(f); n != 0 || err != nil {
				t.Errorf("an empty file: %d, %v", n, err)
			}
			must(t, unix.Fallocate(int(f.Fd()), 0, 0, 16<<20))
			if n, b, err := Of(f); n < 1 || n > 4 || b != 16<<20 || err != nil {
				t.Errorf("a file just made: %d, %d, %v", n, b, err)
			}
			var st unix.Statfs_t
			must(t, f.Sync(), unix.Fstatfs(int(f.Fd()), &st))
			before, err := Free(t.Context(), f, 1<<20)
			must(t, err)
			// The file system reserves some of it for itself.
			if want := st.Bfree * uint64(st.Bsize); before.Bytes < want-want/8 || before.Bytes > want+want/8 || before.Partial {
				t.Errorf("free: %+v, and %d by statfs", before, want)
			}
			if before.Large < before.Bytes/2 {
				t.Errorf("of a new file system: %+v", before)
			}
			for i := int64(0); i < 1500; i++ {
				must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*8192, 4096))
			}
			must(t, f.Sync())
			if n, _, err := Of(f); n < 1500 || n > 1510 || err != nil {
				t.Errorf("a file with holes: %d, %v", n, err)
			}
			after, err := Free(t.Context(), f, 1<<20)
			must(t, err)
			if more := after.Pieces - before.Pieces; more < 1400 {
				t.Errorf("%d more pieces are free", more)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if _, err := Free(ended, f, 1<<20); !errors.Is(err, context.Canceled) {
				t.Errorf("nobody waits for it any more: %v", err)
			}
			if some, err := Free(t.Context(), f, perCall); err != nil || !some.Partial || some.Pieces >= after.Pieces {
				t.Errorf("the first part: %+v, %v", some, err)
			}
		})
	}
}

// Who does not tell says so.
func TestUnsupported(t *testing.T) {
	scratch.NeedRoot(t)
	f, err := os.Open("/dev/shm")
	must(t, err)
	defer f.Close()
	if _, err := Free(t.Context(), f, 1); !errors.Is(err, ErrNoMap) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Of(f); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
