package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/atomicfile"
)

// storageType is the name of our storage in kopia's registry. In the folder it
// is the same as kopia's "filesystem", so the stock program reads it.
const storageType = "stillpoint-local"

// localOptions is what the registry hands back to newLocal.
type localOptions struct {
	Path string `json:"path"`
}

var register = sync.OnceFunc(func() {
	economize(compressor, zstd.SpeedDefault)
	economize(compressorLarge, zstd.SpeedFastest)
	blob.AddSupportedStorage(storageType, localOptions{}, func(ctx context.Context, o *localOptions, create bool) (blob.Storage, error) {
		l, err := newLocal(o.Path, create)
		if err != nil {
			return nil, err
		}
		tellLocal(ctx, l)
		return l, nil
	})
})

// local keeps blobs in a folder, laid out as kopia's own "filesystem" storage
// does. It exists because that one (v0.21.1, repo/blob/filesystem) never
// syncs: after a power cut an index may name packs that are empty, and later
// backups would silently build on them. It also leaves its temporary file when
// the disk is full, and repeats such a write for many seconds. Here a blob is
// on disk before its name exists, and errors come at once.
type local struct {
	sharded.Storage
	blob.DefaultProviderImplementation
	path   string
	files  *localFiles
	listed sync.Once
}

func newLocal(path string, create bool) (*local, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	files := &localFiles{fresh: fresh{root: path}}
	return &local{Storage: sharded.New(files, path, sharded.Options{}, create), path: path, files: files}, nil
}

func (l *local) Close(context.Context) error {
	l.files.packs.close()
	return nil
}

// ListBlobs is first called to find the index, right after the password was
// made a key, which leaves 64 MiB of garbage. Collected now, they are what the
// index and the rest of the run are made of.
func (l *local) ListBlobs(ctx context.Context, prefix blob.ID, each func(blob.Metadata) error) error {
	l.listed.Do(runtime.GC)
	return l.Storage.ListBlobs(ctx, prefix, each)
}

func (l *local) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &localOptions{Path: l.path}}
}

func (l *local) DisplayName() string { return l.path }

// localFiles is the part of local that sharded.Storage calls with paths.
type localFiles struct {
	packs openPacks
	fresh fresh
}

// blobBuffers are what blobs are read through.
var blobBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

func (l *localFiles) GetBlobFromPath(_ context.Context, _, path string, offset, length int64, output blob.OutputBuffer) error {
	output.Reset()
	if length < 0 {
		f, err := os.Open(path)
		if err != nil {
			return storageError(err)
		}
		defer f.Close()
		return readBlob(f, offset, math.MaxInt64-offset, output)
	}
	// Only packs are read in parts, many of them one after the other.
	p, err := l.packs.take(path)
	if err != nil {
		return storageError(err)
	}
	defer l.packs.give(p)
	if err := readBlob(p.f, offset, length, output); err != nil {
		return err
	}
	if int64(output.Length()) != length {
		return fmt.Errorf("%s is too short: %w", filepath.Base(path), blob.ErrInvalidRange)
	}
	return nil
}

func readBlob(f *os.File, offset, length int64, output blob.OutputBuffer) error {
	buf := blobBuffers.Get().(*[]byte)
	defer blobBuffers.Put(buf)
	// Without the methods by which io.Copy would take a buffer of its own.
	from := struct{ io.Reader }{io.NewSectionReader(f, offset, length)}
	if _, err := io.CopyBuffer(output, from, *buf); err != nil {
		return storageError(err)
	}
	return nil
}

func (*localFiles) GetMetadataFromPath(_ context.Context, _, path string) (blob.Metadata, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return blob.Metadata{}, storageError(err)
	}
	return blob.Metadata{Length: fi.Size(), Timestamp: fi.ModTime()}, nil
}

func (l *localFiles) PutBlobInPath(_ context.Context, _, path string, data blob.Bytes, o blob.PutOptions) error {
	if o.HasRetentionOptions() || o.DoNotRecreate {
		return blob.ErrUnsupportedPutBlobOption
	}
	err := atomicfile.Write(path, 0o600, data)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return storageError(err)
		}
		err = atomicfile.Write(path, 0o600, data)
	}
	if err != nil {
		return storageError(err)
	}
	l.fresh.put(path)
	if t := o.SetModTime; !t.IsZero() {
		if err := os.Chtimes(path, t, t); err != nil {
			return storageError(err)
		}
	}
	if o.GetModTime != nil {
		fi, err := os.Stat(path)
		if err != nil {
			return storageError(err)
		}
		*o.GetModTime = fi.ModTime()
	}
	return nil
}

func (*localFiles) DeleteBlobInPath(_ context.Context, _, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return storageError(err)
	}
	return nil
}

func (*localFiles) ReadDir(_ context.Context, path string) ([]os.FileInfo, error) {
	es, err := os.ReadDir(path)
	if err != nil {
		return nil, storageError(err)
	}
	fis := make([]os.FileInfo, 0, len(es))
	for _, e := range es {
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, storageError(err)
		}
		fis = append(fis, fi)
	}
	return fis, nil
}

// storageError turns what the file system said into kopia's or our words.
func storageError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return blob.ErrBlobNotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem.New(problem.RepositoryFull, "", err)
	default:
		return problem.New(problem.RepositoryLost, "", err)
	}
}
