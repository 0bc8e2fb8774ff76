package cachefile

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// Save saves length bytes at offset of the descriptor from, or as many as there
// are before its end, and returns where they are and how many. While there is
// no memory for them it waits, as long as ctx lets it. Once it fails with
// cache-full or cache-lost it does so for ever. Any other failure is one of ctx,
// or of reading from: the cache file is as good as before.
func (f *File) Save(ctx context.Context, from int, offset, length int64) (at, n int64, err error) {
	return f.save(ctx, length, func(p []byte, done int64) (int, error) {
		got, err := readAll(from, p, offset+done)
		if err != nil {
			return 0, fmt.Errorf("read the original: %w", err)
		}
		return got, nil
	})
}

// SaveBytes saves p and returns where it is. It fails like Save.
func (f *File) SaveBytes(ctx context.Context, p []byte) (at int64, err error) {
	at, _, err = f.save(ctx, int64(len(p)), func(to []byte, done int64) (int, error) { return copy(to, p[done:]), nil })
	return at, err
}

// save takes a place and lets read fill it, piece by piece, until that fills
// less than it could.
func (f *File) save(ctx context.Context, length int64, read func(p []byte, done int64) (int, error)) (at, n int64, err error) {
	at, err = f.take(length)
	if err != nil {
		return 0, 0, err
	}
	for n < length {
		want := min(length-n, pieces-(at+n)%pieces)
		got, err := f.behind.put(ctx, at+n, want, func(p []byte) (int, error) { return read(p, n) })
		if err != nil {
			f.giveBack(at, length, n)
			return 0, 0, f.why(err)
		}
		if n += got; got < want {
			break
		}
	}
	f.giveBack(at, length, n)
	f.saved.Add(1)
	f.content.Add(n)
	return at, n, nil
}

// why tells the reason why nothing was taken.
func (f *File) why(err error) error {
	switch err {
	case errOver:
		return cmp.Or(f.Err(), os.ErrClosed)
	case errNoRoom:
		return f.noRoom()
	}
	return err
}

// readAll reads from a file until p is full or the file ends.
func readAll(fd int, p []byte, at int64) (n int, err error) {
	for n < len(p) {
		got, err := file.ReadAt(fd, p[n:], at+int64(n))
		if err != nil {
			return n, err
		}
		if got == 0 {
			break
		}
		n += got
	}
	return n, nil
}

// ReadAt reads what was saved at a place. It reads less than asked only at the
// end of the file. A failure is that of a file that is lost.
func (f *File) ReadAt(p []byte, at int64) (int, error) {
	done := 0
	for done < len(p) {
		n, missing, err := f.behind.read(p[done:], at+int64(done))
		if err != nil {
			return done, f.why(err)
		}
		if missing > 0 {
			if n, err = readAll(f.fd, p[done:done+missing], at+int64(done)); err != nil {
				err := f.lose(problem.New(problem.CacheLost, f.dir, fmt.Errorf("read the cache file: %w", err)))
				f.giveUp()
				return done, err
			}
			if f.behind.isOver() { // then its blocks may be gone, and what was read be zeros
				return done, f.why(errOver)
			}
		}
		if done += n; n < missing {
			break
		}
	}
	return done, nil
}
