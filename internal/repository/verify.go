package repository

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// VerifyProgress counts what Verify does. It may be read at any time.
type VerifyProgress struct {
	Backups atomic.Int64 // all of whose trees are done, damaged or not
	Files   atomic.Int64 // regular files of all backups, each name of a hard-linked one
	Dirs    atomic.Int64
	Others  atomic.Int64 // symlinks, device nodes …
	Bytes   atomic.Int64 // content of the files done
	Read    atomic.Int64 // bytes read and checked, each content once
}

// VerifyOptions say how deep Verify looks.
type VerifyOptions struct {
	ReadData bool                         // read every byte; kopia checks each content's hash
	Damage   func(path string, err error) // told of everything that cannot be restored, once it is all known
	Progress *VerifyProgress
}

// Verify looks whether everything that the backups lead to is there: each
// listing can be read, each content of each file is in the index, and the pack
// that holds it exists and is long enough. It fails where that cannot be found
// out; damage goes to o.Damage.
func (r *Repository) Verify(ctx context.Context, bs []Backup, o VerifyOptions) error {
	if o.Progress == nil {
		o.Progress = &VerifyProgress{}
	}
	v := &verifying{r: r, o: o, blobs: map[blob.ID]int64{}, slot: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
	err := r.kopia.BlobReader().ListBlobs(ctx, "", func(m blob.Metadata) error {
		v.blobs[m.BlobID] = m.Length
		return nil
	})
	if err != nil {
		return understand(r.path, err)
	}
	var wg sync.WaitGroup
	for _, b := range bs {
		for _, t := range b.Trees {
			v.entry(ctx, &wg, t.Root)
		}
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return understand(r.path, err)
	}
	o.Progress.Backups.Store(int64(len(bs)))
	for _, b := range bs {
		if b.Lost > 0 {
			o.Damage(b.ID, problem.Newf(problem.RepositoryDamaged, "", "of %d of its %d paths there is no record any more", b.Lost, b.Lost+len(b.Trees)))
		}
	}
	if v.damaged.Load() == 0 {
		return nil
	}
	// Objects are looked at once, however many backups share them. What is
	// damaged is named in every backup, so that is a second walk.
	for _, b := range bs {
		for _, t := range b.Trees {
			v.report(ctx, fmt.Sprintf("%s:%s", b.ID, t.Path), &t.Root)
		}
	}
	return understand(r.path, ctx.Err())
}

type verifying struct {
	r     *Repository
	o     VerifyOptions
	blobs map[blob.ID]int64
	seen  sync.Map // object and content IDs that were looked at
	bad   sync.Map // object ID -> error
	slot  chan struct{}

	damaged atomic.Int64
}

// report names everything that leads to a damaged object.
func (v *verifying) report(ctx context.Context, path string, rec *Record) {
	if err, ok := v.bad.Load(rec.Object); ok {
		v.o.Damage(path, err.(error))
		return
	}
	if rec.Type != tree.Directory {
		return
	}
	l, err := v.r.Listing(ctx, rec)
	for err == nil {
		var r Record
		if r, err = l.Next(); err == nil {
			v.report(ctx, filepath.Join(path, r.Name), &r)
		}
	}
	if l != nil {
		l.Close()
	}
	if err != io.EOF && ctx.Err() == nil {
		v.o.Damage(path, err)
	}
}

func (v *verifying) entry(ctx context.Context, wg *sync.WaitGroup, rec Record) {
	if ctx.Err() != nil {
		return
	}
	if _, again := v.seen.LoadOrStore(rec.Object, true); again {
		v.again(&rec)
		return
	}
	select {
	case v.slot <- struct{}{}:
		wg.Go(func() {
			defer func() { <-v.slot }()
			v.look(ctx, wg, &rec)
		})
	default:
		v.look(ctx, wg, &rec)
	}
}

func (v *verifying) done(rec *Record) {
	switch p := v.o.Progress; rec.Type {
	case tree.Directory:
		p.Dirs.Add(1)
	case tree.File:
		p.Files.Add(1)
		p.Bytes.Add(rec.Size)
	default:
		p.Others.Add(1)
	}
}

// again counts what was looked at before, a directory with all that is in it.
func (v *verifying) again(rec *Record) {
	s := rec.Summary
	if rec.Type != tree.Directory || s == nil {
		v.done(rec)
		return
	}
	p := v.o.Progress
	p.Dirs.Add(s.TotalDirCount)
	p.Files.Add(s.TotalFileCount)
	p.Others.Add(s.TotalSymlinkCount)
	p.Bytes.Add(s.TotalFileSize)
}

func (v *verifying) look(ctx context.Context, wg *sync.WaitGroup, rec *Record) {
	defer v.done(rec)
	err := v.object(ctx, rec)
	if err == nil && rec.Type == tree.Directory {
		err = v.listing(ctx, wg, rec)
	}
	if err != nil && ctx.Err() == nil {
		v.bad.Store(rec.Object, err)
		v.damaged.Add(1)
	}
}

func (v *verifying) listing(ctx context.Context, wg *sync.WaitGroup, dir *Record) error {
	l, err := v.r.Listing(ctx, dir)
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		rec, err := l.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		v.entry(ctx, wg, rec)
	}
}

// object checks what one object is made of.
func (v *verifying) object(ctx context.Context, rec *Record) error {
	id, err := object.ParseID(rec.Object)
	if err != nil {
		return problem.New(problem.RepositoryDamaged, "", err)
	}
	cs, err := v.r.kopia.VerifyObject(ctx, id)
	if err != nil {
		return understand(rec.Object, err)
	}
	for _, c := range cs {
		if err := v.content(ctx, c, v.o.ReadData && rec.Type != tree.Directory); err != nil {
			return err
		}
	}
	if rec.Type == tree.File {
		return v.length(ctx, id, rec)
	}
	return nil
}

// content looks at one content, and reads it where asked to; once, however
// many files share it.
func (v *verifying) content(ctx context.Context, c content.ID, read bool) error {
	if _, again := v.seen.Load(c); again {
		return nil
	}
	info, err := v.r.kopia.ContentInfo(ctx, c)
	if err != nil {
		return understand(c.String(), err)
	}
	size, ok := v.blobs[info.PackBlobID]
	switch end := int64(info.PackOffset) + int64(info.PackedLength); {
	case !ok:
		return problem.Newf(problem.RepositoryDamaged, c.String(), "pack %s is missing", info.PackBlobID)
	case size < end:
		return problem.Newf(problem.RepositoryDamaged, c.String(), "pack %s has %d bytes, needed are %d", info.PackBlobID, size, end)
	}
	if read {
		b, err := v.r.kopia.ContentReader().GetContent(ctx, c)
		if err != nil {
			return understand(c.String(), err)
		}
		v.o.Progress.Read.Add(int64(len(b)))
	}
	v.seen.Store(c, true)
	return nil
}

// length compares the size of a file with that of its content, without
// reading it.
func (v *verifying) length(ctx context.Context, id object.ID, rec *Record) error {
	n := rec.Size
	if _, list := id.IndexObjectID(); list {
		o, err := v.r.kopia.OpenObject(ctx, id)
		if err != nil {
			return understand(rec.Object, err)
		}
		defer o.Close()
		n = o.Length()
	} else if c, compressed, ok := id.ContentID(); ok && !compressed {
		info, err := v.r.kopia.ContentInfo(ctx, c)
		if err != nil {
			return understand(c.String(), err)
		}
		n = int64(info.OriginalLength)
	}
	if n != rec.Size {
		return problem.Newf(problem.RepositoryDamaged, "", "has %d bytes, should have %d", n, rec.Size)
	}
	return nil
}
