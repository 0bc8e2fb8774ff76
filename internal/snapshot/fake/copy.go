package fake

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"stillpoint/internal/sys/file"
)

// A copier copies trees with all attributes. It runs no program, which would
// go on when this process is killed.
type copier struct {
	ctx    context.Context
	device uint64            // what is mounted below is left out
	links  map[uint64]string // first copy by inode, of files with several links
	xattrs file.Xattrs
}

// copyTree copies what is at from to the path to. A directory may be there
// already.
func copyTree(ctx context.Context, from, to string) error {
	st, err := file.Stat(file.Here, from, file.NoFollow)
	if err != nil {
		return err
	}
	c := copier{ctx: ctx, device: st.Device, links: map[uint64]string{}}
	return c.copy(from, to, st)
}

func (c *copier) copy(from, to string, st file.Info) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if st.Links > 1 && st.Kind != file.Folder {
		if first, ok := c.links[st.Inode]; ok {
			return os.Link(first, to)
		}
		c.links[st.Inode] = to
	}
	if err := c.create(from, to, st); err != nil {
		return err
	}
	return c.attributes(from, to, st)
}

func (c *copier) create(from, to string, st file.Info) error {
	switch st.Kind {
	case file.Regular:
		return c.content(from, to, st.Size)
	case file.Folder:
		return c.directory(from, to, st)
	case file.Symlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return file.MakeNode(file.Here, to, st.Kind, st.Node)
}

func (c *copier) directory(from, to string, dir file.Info) error {
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	if dir.Device != c.device {
		return nil
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, n := range names {
		child := filepath.Join(from, n.Name())
		st, err := file.Stat(file.Here, child, file.NoFollow|file.NoAutomount)
		if err != nil {
			return err
		}
		if err := c.copy(child, filepath.Join(to, n.Name()), st); err != nil {
			return err
		}
	}
	return nil
}

// content copies the data between the holes.
func (c *copier) content(from, to string, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	for at := int64(0); at < size; {
		data, err := file.NextData(int(in.Fd()), at)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if at, err = file.NextHole(int(in.Fd()), data); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, at-data)); err != nil {
			return err
		}
	}
	return out.Truncate(size)
}

func (c *copier) attributes(from, to string, st file.Info) error {
	fd, err := file.Open(file.Here, to, file.Place|file.Final)
	if err != nil {
		return err
	}
	defer file.Close(fd)
	if err := file.SetOwner(fd, int(st.UID), int(st.GID)); err != nil && os.Geteuid() == 0 {
		return err
	}
	names, err := c.xattrs.List(file.Here, from, file.NoFollow)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	for _, n := range names {
		v, err := c.xattrs.Get(file.Here, from, file.NoFollow, n)
		if err == nil {
			err = file.SetPlaceXattr(fd, n, v)
		}
		if err != nil {
			return err
		}
	}
	if st.Kind != file.Symlink {
		if err := file.SetPlaceMode(fd, st.Mode); err != nil {
			return err
		}
	}
	return file.SetModified(fd, st.Modified)
}
