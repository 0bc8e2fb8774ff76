package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/indexblob"
)

// fresh are the packs that were written since the last index, by their paths.
// Nothing leads to them yet. A run that ends before an index is written would
// leave them for ever: with a full disk, more with each attempt.
type fresh struct {
	root string

	mu    sync.Mutex
	paths []string
}

// put notes a blob that was written. An index may lead to any pack before it.
func (f *fresh) put(path string) {
	id, err := filepath.Rel(f.root, path)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case strings.HasPrefix(id, indexblob.V0IndexBlobPrefix), strings.HasPrefix(id, epochBlobs):
		f.paths = nil
	case strings.HasPrefix(id, string(content.PackBlobIDPrefixRegular)),
		strings.HasPrefix(id, string(content.PackBlobIDPrefixSpecial)),
		strings.HasPrefix(id, string(content.BlobIDPrefixSession)):
		f.paths = append(f.paths, path)
	}
}

// drop removes them.
func (f *fresh) drop() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed error
	for _, p := range f.paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = both(failed, storageError(err))
		}
	}
	f.paths = nil
	return failed
}

// epochBlobs is the prefix of indexes since version 2 of kopia's format
// (internal/epoch/epoch_manager.go: EpochManagerIndexUberPrefix).
const epochBlobs = "x"

type localKey struct{}

// withLocal makes newLocal say in *l what it made: kopia opens the storage
// itself.
func withLocal(ctx context.Context, l **local) context.Context {
	return context.WithValue(ctx, localKey{}, l)
}

func tellLocal(ctx context.Context, l *local) {
	if p, ok := ctx.Value(localKey{}).(**local); ok {
		*p = l
	}
}
