package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A stage is the folder that everything lies in, with the mounted volume.
type stage struct {
	dir    string  // on the ordinary disk
	source *volume // holds the data
	files  string  // the tree, on the volume
	large  string  // the folder of the large file, on the volume

	fileBytes int64
	room      int64 // for all the data, on a volume
}

// newStage makes the volume and the data. remove must follow, also when it
// fails.
func newStage(ctx context.Context, o *options) (s *stage, err error) {
	s = &stage{room: 2<<30 + o.large*5/4 + int64(o.files)*(32<<10)}
	if s.dir, err = os.MkdirTemp(o.dir, "stillpoint-bench-"); err != nil {
		return s, err
	}
	if s.source, err = newVolume(ctx, s.dir, "source", s.room); err != nil {
		return s, err
	}
	s.files, s.large = filepath.Join(s.source.point, "files"), filepath.Join(s.source.point, "large")
	data, err := newDataset(ctx, o.seed, s.dir)
	if err != nil {
		return s, err
	}
	if o.files > 0 {
		say("making %d files …", o.files)
		if s.fileBytes, err = data.tree(ctx, s.files, o.files); err != nil {
			return s, err
		}
	}
	if o.large > 0 {
		say("making a file of %s …", formatSize(o.large))
		if err := os.Mkdir(s.large, 0o755); err != nil {
			return s, err
		}
		if err := data.large(ctx, filepath.Join(s.large, "large"), o.large); err != nil {
			return s, err
		}
	}
	// All programs look twice at what changed in the last seconds.
	select {
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
	}
	return s, context.Cause(ctx)
}

// remove removes all that there was.
func (s *stage) remove() error {
	var err error
	if s.source != nil {
		err = s.source.remove()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// A volume is a new btrfs file system in a file.
type volume struct {
	image string
	point string
}

func newVolume(ctx context.Context, dir, name string, size int64) (*volume, error) {
	v := &volume{image: filepath.Join(dir, name+".img"), point: filepath.Join(dir, name)}
	f, err := os.Create(v.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close(), os.Mkdir(v.point, 0o755)); err != nil {
		return nil, err
	}
	if err := tool(ctx, "mkfs.btrfs", "--quiet", v.image); err != nil {
		return nil, err
	}
	return v, tool(ctx, "mount", "-o", "loop,noatime", v.image, v.point)
}

func (v *volume) remove() error {
	return errors.Join(tool(context.Background(), "umount", v.point), os.Remove(v.point), os.Remove(v.image))
}

func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
