package repository

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// Listing reads the directory whose record r is.
func (r *Repository) Listing(ctx context.Context, rec *Record) (*Listing, error) {
	return openListing(ctx, r.kopia, rec.Object)
}

// Open reads the content of a file. The reader is for one goroutine; several
// may read the same file.
func (r *Repository) Open(ctx context.Context, rec *Record) (io.ReadSeekCloser, error) {
	id, err := object.ParseID(rec.Object)
	if err != nil {
		return nil, problem.New(problem.RepositoryDamaged, rec.Name, err)
	}
	o, err := r.kopia.OpenObject(ctx, id)
	if err != nil {
		return nil, understand(rec.Name, err)
	}
	return reader{o, rec.Name}, nil
}

// reader gives the errors of kopia's reader their code.
type reader struct {
	object.Reader
	name string
}

func (c reader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = understand(c.name, err)
	}
	return n, err
}

// A Content is the content of a file, in the pieces in which it is stored.
type Content struct {
	r      *Repository
	rec    *Record
	pieces []object.IndirectObjectEntry
}

// Content finds the pieces of a file. It may be read by several goroutines.
func (r *Repository) Content(ctx context.Context, rec *Record) (*Content, error) {
	id, err := object.ParseID(rec.Object)
	if err != nil {
		return nil, problem.New(problem.RepositoryDamaged, rec.Name, err)
	}
	c := &Content{r: r, rec: rec}
	list, ok := id.IndexObjectID()
	if !ok {
		c.pieces = []object.IndirectObjectEntry{{Length: rec.Size, Object: id}}
		return c, nil
	}
	o, err := r.kopia.OpenObject(ctx, list)
	if err != nil {
		return nil, understand(rec.Name, err)
	}
	defer o.Close()
	var l struct {
		Entries []object.IndirectObjectEntry `json:"entries"`
	}
	if err := json.NewDecoder(o).Decode(&l); err != nil {
		return nil, understand(rec.Name, fmt.Errorf("list of pieces: %w", err))
	}
	c.pieces = l.Entries
	return c, nil
}

// Copy gives to all bytes of a part of the file, in order. What it gives is
// good only until to returns.
func (c *Content) Copy(ctx context.Context, part tree.Range, to func(b []byte, at int64) error) error {
	at, end := part.Offset, part.Offset+part.Length
	i, _ := slices.BinarySearchFunc(c.pieces, at, func(p object.IndirectObjectEntry, at int64) int {
		if p.Start+p.Length <= at {
			return -1
		}
		return 1
	})
	for ; at < end; i++ {
		if i >= len(c.pieces) || c.pieces[i].Start > at || c.pieces[i].Start+c.pieces[i].Length <= at {
			return problem.Newf(problem.RepositoryDamaged, "", "content ends at byte %d, not at %d", at, c.rec.Size)
		}
		p := &c.pieces[i]
		b, err := c.piece(ctx, p)
		if err != nil {
			return err
		}
		b = b[at-p.Start : min(end, p.Start+p.Length)-p.Start]
		if err := to(b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return nil
}

// piece reads one piece. kopia's own reader would copy it twice.
func (c *Content) piece(ctx context.Context, p *object.IndirectObjectEntry) (b []byte, err error) {
	id, compressed, ok := p.Object.ContentID()
	if ok && !compressed {
		b, err = c.r.kopia.ContentReader().GetContent(ctx, id)
	} else { // as versions of kopia before 0.9 stored it
		var o object.Reader
		if o, err = c.r.kopia.OpenObject(ctx, p.Object); err == nil {
			b, err = io.ReadAll(o)
			o.Close()
		}
	}
	if err != nil {
		return nil, understand(c.rec.Name, err)
	}
	if int64(len(b)) != p.Length {
		return nil, problem.Newf(problem.RepositoryDamaged, "", "content ends at byte %d, not at %d", p.Start+int64(len(b)), c.rec.Size)
	}
	return b, nil
}

// Readlink makes sure that the record of a symbolic link has its target: kopia
// has it as content only.
func (r *Repository) Readlink(ctx context.Context, rec *Record) error {
	if rec.Type != tree.Symlink || rec.Target != "" {
		return nil
	}
	o, err := r.Open(ctx, rec)
	if err != nil {
		return err
	}
	defer o.Close()
	b, err := io.ReadAll(io.LimitReader(o, 1<<16))
	rec.Target, rec.Size = string(b), int64(len(b))
	return err
}

// Lookup finds the record of a live path in a tree that holds it.
func (r *Repository) Lookup(ctx context.Context, t *Tree, path string) (Record, error) {
	rel, ok := below(t.Path, path)
	if !ok {
		return Record{}, problem.Newf(problem.NotInBackup, path, "the backup holds %s", t.Path)
	}
	rec := t.Root
	if rel == "" {
		return rec, nil
	}
	for _, name := range strings.Split(rel, "/") {
		next, err := r.child(ctx, &rec, name)
		if err != nil {
			return next, fmt.Errorf("look up %s: %w", path, err)
		}
		rec = next
	}
	return rec, nil
}

func (r *Repository) child(ctx context.Context, dir *Record, name string) (Record, error) {
	if dir.Type != tree.Directory {
		return Record{}, problem.Newf(problem.NotInBackup, name, "%q is not a directory", dir.Name)
	}
	l, err := r.Listing(ctx, dir)
	if err != nil {
		return Record{}, err
	}
	defer l.Close()
	for {
		rec, err := l.Next()
		if err == io.EOF {
			return rec, problem.Newf(problem.NotInBackup, name, "no such name in %q", dir.Name)
		}
		if err != nil || rec.Name == name {
			return rec, err
		}
	}
}

// below returns what of path lies below root, "" for root itself.
func below(root, path string) (string, bool) {
	path = filepath.Clean(path)
	if path == root {
		return "", true
	}
	if root == "/" {
		return strings.TrimPrefix(path, "/"), strings.HasPrefix(path, "/")
	}
	return strings.CutPrefix(path, root+"/")
}

// Holds tells whether path is the tree's or lies where it could be in it.
func (t *Tree) Holds(path string) bool {
	_, ok := below(t.Path, path)
	return ok
}
