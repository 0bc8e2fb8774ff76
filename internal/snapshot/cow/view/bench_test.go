package view

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/tree"
)

func readContent(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}

// walk reads all attributes of a tree as a backup does, and its content.
func walk(root string, content bool) error {
	node, err := tree.Open(tree.Source{Path: "/live", Root: root})
	if err != nil {
		return err
	}
	defer node.Close()
	return walkDir(node.Dir, content, make([]byte, 1<<20))
}

func walkDir(d *tree.Dir, content bool, buf []byte) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		e, err := d.Stat(n.Name)
		if err != nil {
			return err
		}
		if err := d.Complete(&e); err != nil {
			return err
		}
		switch {
		case e.Type == tree.Directory:
			child, err := d.OpenDir(n.Name)
			if err != nil {
				return err
			}
			if err := walkDir(child, content, buf); err != nil {
				return err
			}
			if err := child.Close(); err != nil {
				return err
			}
		case e.Type == tree.File && content:
			c, err := d.OpenFile(e)
			if err != nil {
				return err
			}
			if _, err := c.Flags(); err != nil {
				return err
			}
			if _, err := c.Holes(); err != nil {
				return err
			}
			if _, err := c.ReadAt(buf[:e.Size], 0); err != nil && err != io.EOF {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// read lets another process read, and returns how long that took.
func read(tb testing.TB, what, path string) time.Duration {
	tb.Helper()
	c := other(what, path)
	begin := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return time.Since(begin)
}

// BenchmarkView compares reading through a view with reading live, in a process
// of its own and in that which serves.
func BenchmarkView(b *testing.B) {
	v := scratch.New(b, "ext4", 2048*scratch.MiB, scratch.MountOptions("noatime"))
	large := v.Dir + "/large"
	const size = 512 << 20
	if err := os.WriteFile(large, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	small := v.Dir + "/small"
	const files = 20000
	for i := range files {
		dir := fmt.Sprintf("%s/d%d", small, i/200)
		if i%200 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), make([]byte, 2000), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	fd, err := file.Open(file.Here, v.Dir, file.Read|file.Directory)
	if err != nil {
		b.Fatal(err)
	}
	if err := file.SyncFS(fd); err != nil {
		b.Fatal(err)
	}
	file.Close(fd)
	f := newFolder(b, v.Dir)
	for _, c := range []struct{ what, path string }{{"content", "/large"}, {"walk", "/small"}, {"tree", "/small"}, {"again", "/small"}} {
		report := func(b *testing.B, spent time.Duration) {
			if c.what == "content" {
				b.ReportMetric(size/1e6/(spent.Seconds()/float64(b.N)), "MB/s")
			} else {
				b.ReportMetric(float64(spent.Microseconds())/float64(b.N)/files, "us/file")
			}
			b.ReportMetric(0, "ns/op")
		}
		b.Run(c.what+"/live", func(b *testing.B) {
			spent := time.Duration(0)
			for range b.N {
				spent += read(b, c.what, v.Dir+c.path)
			}
			report(b, spent)
		})
		for _, where := range []string{"view", "inside"} {
			b.Run(c.what+"/"+where, func(b *testing.B) {
				spent := time.Duration(0)
				for range b.N {
					w, err := Mount(f, Options{})
					if err != nil {
						b.Fatal(err)
					}
					if where == "view" {
						spent += read(b, c.what, path(w)+c.path)
					} else {
						begin := time.Now()
						if err := others[c.what](path(w) + c.path); err != nil {
							b.Fatal(err)
						}
						spent += time.Since(begin)
					}
					if err := w.Close(); err != nil {
						b.Fatal(err)
					}
				}
				report(b, spent)
			})
		}
	}
}
