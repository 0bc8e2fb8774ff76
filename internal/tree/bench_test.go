package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkRead walks and reads 100,000 small files in 1,000 directories, with
// all attributes, by one goroutine.
func BenchmarkRead(b *testing.B) {
	root := smallFiles(b)
	buf := make([]byte, 128<<10)
	for b.Loop() {
		n, err := Open(Source{Path: "/live", Root: root})
		if err != nil {
			b.Fatal(err)
		}
		if files := readTree(b, n.Dir, buf); files != 100_000 {
			b.Fatal(files)
		}
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/file")
}

func readTree(b *testing.B, d *Dir, buf []byte) int {
	names, err := d.Names()
	if err != nil {
		b.Fatal(err)
	}
	files := 0
	for _, n := range names {
		e, err := d.Stat(n.Name)
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Complete(&e); err != nil {
			b.Fatal(err)
		}
		if n.IsDir {
			below, err := d.OpenDir(n.Name)
			if err != nil {
				b.Fatal(err)
			}
			files += readTree(b, below, buf)
			_ = below.Close()
			continue
		}
		files++
		c, err := d.OpenFile(e)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Holes(); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Flags(); err != nil {
			b.Fatal(err)
		}
		if _, err := c.ReadAt(buf[:e.Size], 0); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
	return files
}

// BenchmarkRestore makes the same files.
func BenchmarkRestore(b *testing.B) {
	from, to := smallFiles(b), b.TempDir()
	i := 0
	for b.Loop() {
		c := &copier{}
		i++
		if err := c.tree(Source{Path: "/live", Root: from}, filepath.Join(to, fmt.Sprint(i))); err != nil || len(c.problems) > 0 {
			b.Fatal(err, c.problems)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/file")
}

func smallFiles(b *testing.B) string {
	b.Helper()
	root := b.TempDir()
	content := []byte(strings.Repeat("content ", 512))
	for i := range 1000 {
		dir := filepath.Join(root, fmt.Sprintf("d%02d/d%02d", i/32, i%32))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", j)), content[:1000+j*30], 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	return root
}
