package snapshottest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/sys/file"
)

// A manifest says of every path in a tree what it is, with all attributes that
// a snapshot keeps.
type manifest map[string]string

// grain is how exactly holes are compared: copies may cut them smaller.
const grain = 64 << 10

// describe reads the tree at root.
func (c *C) describe(root string) manifest {
	c.Helper()
	d := describer{root: root, m: manifest{}, first: map[uint64]string{}}
	if err := d.walk("."); err != nil {
		c.Fatalf("read %s: %v", root, err)
	}
	return d.m
}

type describer struct {
	root  string
	m     manifest
	first map[uint64]string // path by inode, of files with several links
	x     file.Xattrs
}

// at is a path that never ends in a symbolic link of ours, nor is it cleaned:
// the root may be one in /proc.
func (d *describer) at(rel string) string { return d.root + "/" + rel }

func (d *describer) walk(rel string) error {
	st, err := file.Stat(file.Here, d.at(rel), file.NoFollow)
	if err != nil {
		return err
	}
	words := []string{fmt.Sprintf("%o %o %d:%d %d", st.Kind, st.Mode, st.UID, st.GID, st.Modified.UnixNano())}
	if st.Kind != file.Folder && st.Links > 1 {
		if _, ok := d.first[st.Inode]; !ok {
			d.first[st.Inode] = rel
		}
		words = append(words, "is "+d.first[st.Inode])
	}
	attrs, err := d.attributes(rel)
	if err != nil {
		return err
	}
	words = append(words, attrs...)
	more, err := d.content(rel, st)
	if err != nil {
		return err
	}
	d.m[rel] = strings.Join(append(words, more...), " ")
	if st.Kind != file.Folder {
		return nil
	}
	names, err := os.ReadDir(d.at(rel))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := d.walk(path.Join(rel, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) content(rel string, st file.Info) ([]string, error) {
	switch st.Kind {
	case file.Symlink:
		target, err := os.Readlink(d.at(rel))
		return []string{"-> " + target}, err
	case file.Character, file.Block:
		return []string{fmt.Sprintf("device %x", st.Node)}, nil
	case file.Regular:
	default:
		return nil, nil
	}
	f, err := os.Open(d.at(rel))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	holes, err := holesOf(f, st.Size)
	return []string{fmt.Sprintf("%d bytes %.8x", st.Size, h.Sum(nil)), holes}, err
}

// holesOf names the holes of a file.
func holesOf(f *os.File, size int64) (string, error) {
	var b strings.Builder
	for at := int64(0); at < size; {
		hole, err := f.Seek(at, 4) // SEEK_HOLE
		if err != nil {
			return "", err
		}
		if hole >= size {
			break
		}
		if at, err = f.Seek(hole, 3); errors.Is(err, syscall.ENXIO) { // SEEK_DATA
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

func (d *describer) attributes(rel string) ([]string, error) {
	names, err := d.x.List(file.Here, d.at(rel), file.NoFollow)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var words []string
	for _, n := range names {
		v, err := d.x.Get(file.Here, d.at(rel), file.NoFollow, n)
		if err != nil {
			return nil, err
		}
		words = append(words, fmt.Sprintf("%s=%x", n, v))
	}
	return words, nil
}

// below is the part of a manifest at and below a path.
func (m manifest) below(rel string) manifest {
	out := manifest{}
	for p, what := range m {
		if p == rel || strings.HasPrefix(p, rel+"/") {
			out[p] = what
		}
	}
	return out
}

// same fails when two manifests differ.
func (c *C) same(what string, got, want manifest) {
	c.Helper()
	paths := slices.Sorted(maps.Keys(want))
	for p := range got {
		if _, ok := want[p]; !ok {
			paths = append(paths, p)
		}
	}
	shown := 0
	for _, p := range paths {
		if got[p] == want[p] {
			continue
		}
		if shown++; shown > 10 {
			c.Errorf("%s: and more", what)
			return
		}
		c.Errorf("%s: %s\n is  %s\n not %s", what, p, orNone(got[p]), orNone(want[p]))
	}
}

func orNone(s string) string {
	if s == "" {
		return "missing"
	}
	return s
}
