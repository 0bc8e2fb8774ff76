package snapshottest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
)

// show reads what a snapshot shows at a path, in every way there is. All ways
// show the same.
func (c *C) show(s snapshot.Snapshot, rel string) manifest {
	c.Helper()
	m := c.describe(s.Root() + "/" + rel)
	readable, ok := snapshot.Ask[snapshot.Readable](s)
	if !ok {
		return m
	}
	r, err := readable.Reader(c.ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return m
	}
	c.must(err)
	defer func() { c.must(r.Close()) }()
	d := directly{r: r, m: manifest{}, first: map[uint64]string{}}
	top, err := d.at(rel)
	if err == nil {
		err = d.walk(".", top)
	}
	if err != nil {
		c.Fatalf("read %s of %s directly: %v", rel, s.ID(), err)
	}
	c.same("read directly", d.m, m)
	return m
}

// openDirectly reads the first MiB of a file, and returns how the rest is read,
// and what that was verified to be. Where a snapshot has no Reader that fails.
func (c *C) openDirectly(s snapshot.Snapshot, rel string) func() ([]byte, error) {
	c.Helper()
	readable, ok := snapshot.Ask[snapshot.Readable](s)
	if !ok {
		return func() ([]byte, error) { return nil, errors.ErrUnsupported }
	}
	r, err := readable.Reader(c.ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return func() ([]byte, error) { return nil, err }
	}
	c.must(err)
	c.Cleanup(func() { c.must(r.Close()) })
	i, err := (&directly{r: r}).at(rel)
	c.must(err)
	f, err := r.Open(i)
	c.must(err)
	c.Cleanup(func() { c.must(f.Close()) })
	_, err = f.ReadAt(make([]byte, 1<<20), 0)
	c.must(err)
	return func() ([]byte, error) {
		rest, err := io.ReadAll(io.NewSectionReader(f, 1<<20, i.Info.Size-1<<20))
		if err == nil {
			err = f.Verify()
		}
		return rest, err
	}
}

// directly is a describer for a Reader.
type directly struct {
	r     snapshot.Reader
	m     manifest
	first map[uint64]string
}

func (d *directly) at(rel string) (snapshot.Item, error) {
	i, err := d.r.Top()
	for name := range strings.SplitSeq(rel, "/") {
		if err == nil && name != "." {
			i, err = d.r.Lookup(i.Info.Inode, name)
		}
	}
	return i, err
}

func (d *directly) walk(rel string, i snapshot.Item) error {
	st := i.Info
	words := []string{fmt.Sprintf("%o %o %d:%d %d", st.Kind, st.Mode, st.UID, st.GID, st.Modified.UnixNano())}
	if st.Kind != file.Folder && st.Links > 1 {
		if _, ok := d.first[st.Inode]; !ok {
			d.first[st.Inode] = rel
		}
		words = append(words, "is "+d.first[st.Inode])
	}
	for _, x := range i.XAttrs {
		words = append(words, fmt.Sprintf("%s=%x", x.Name, x.Value))
	}
	more, err := d.content(i)
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	d.m[rel] = strings.Join(append(words, more...), " ")
	if st.Kind != file.Folder {
		return nil
	}
	items, err := d.list(st.Inode)
	if err != nil {
		return fmt.Errorf("%s: %w", rel, err)
	}
	for _, i := range items {
		if err := d.walk(path.Join(rel, i.Name), i); err != nil {
			return err
		}
	}
	return nil
}

// list describes a large directory in one piece.
func (d *directly) list(dir uint64) ([]snapshot.Item, error) {
	l, err := d.r.List(dir)
	if err != nil || len(l.Names) == 0 {
		return l.Items, err
	}
	var numbers []uint64
	for _, n := range l.Names {
		numbers = append(numbers, n.Inode)
	}
	items, err := d.r.Describe(numbers)
	for i := range items {
		items[i].Name = l.Names[i].Name
	}
	return items, err
}

func (d *directly) content(i snapshot.Item) ([]string, error) {
	switch i.Info.Kind {
	case file.Symlink:
		return []string{"-> " + i.Target}, nil
	case file.Character, file.Block:
		return []string{fmt.Sprintf("device %x", i.Info.Node)}, nil
	case file.Regular:
	default:
		return nil, nil
	}
	f, err := d.r.Open(i)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(f, 0, i.Info.Size))
	var holes string
	if err == nil {
		holes, err = holesIn(f, i.Info.Size)
	}
	err = errors.Join(err, f.Verify(), f.Close())
	return []string{fmt.Sprintf("%d bytes %.8x", i.Info.Size, h.Sum(nil)), holes}, err
}

// holesIn is holesOf for a Reader.
func holesIn(f snapshot.Content, size int64) (string, error) {
	var b strings.Builder
	for at := int64(0); at < size; {
		hole, err := f.Next(at, true)
		if err != nil {
			return "", err
		}
		if hole >= size {
			break
		}
		if at, err = f.Next(hole, false); errors.Is(err, syscall.ENXIO) {
			at, err = size, nil
		}
		if err != nil {
			return "", err
		}
		if from, to := (hole+grain-1)/grain, at/grain; from < to {
			fmt.Fprintf(&b, "hole %d-%d ", from, to)
		}
	}
	return b.String(), nil
}
