package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/tools/txtar"
)

// A recordedHost is a host kept in an archive: testdata/NAME.txtar. Its parts
// are files under /proc and /run/udev/data as they are; "sys" and "dev" with a
// line "PATH = CONTENT" or "PATH -> TARGET" for each file or link;
// "probe.json"; and the tables "find" and "below".
type recordedHost struct {
	Roots
	probe       *recordedProbe
	find, below string
}

func loadHost(t *testing.T, archive string) recordedHost {
	t.Helper()
	a, err := txtar.ParseFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h := recordedHost{probe: &recordedProbe{asked: map[string]bool{}}}
	h.Roots = Roots{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev"),
		Udev: filepath.Join(dir, "run/udev/data"), Probe: h.probe}
	for _, f := range a.Files {
		switch data := string(f.Data); f.Name {
		case "sys", "dev":
			for line := range strings.Lines(data) {
				line = strings.TrimSuffix(line, "\n")
				if name, target, ok := strings.Cut(line, " -> "); ok {
					link(t, target, filepath.Join(dir, f.Name, name))
				} else if name, content, ok := strings.Cut(line, " ="); ok {
					writeFile(t, filepath.Join(dir, f.Name, name), strings.TrimPrefix(content, " ")+"\n")
				} else {
					t.Fatalf("%s: %s: line not understood: %q", archive, f.Name, line)
				}
			}
		case "probe.json":
			if err := json.Unmarshal(f.Data, h.probe); err != nil {
				t.Fatalf("%s: %s: %v", archive, f.Name, err)
			}
		case "find":
			h.find = data
		case "below":
			h.below = data
		default:
			writeFile(t, filepath.Join(dir, f.Name), data)
		}
	}
	return h
}

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.Symlink(target, name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A recordedProbe answers from an archive. What the archive does not answer is
// an error, and so becomes a warning of the table and shows in its golden
// file: a network file system that is asked fails the test.
type recordedProbe struct {
	FileSystems map[string]Facts             // by mount point
	Superblocks map[string]map[string]string // by "NODE MAJOR:MINOR"
	Partitions  map[string]string            // by "NODE MAJOR:MINOR PARTITION"
	Links       map[string]string            // symbolic links
	Missing     []string                     // paths that do not exist; all others do
	Silent      []string                     // paths below which a lookup never ends
	Covered     []string                     // mount points that something covers by now

	mu    sync.Mutex
	asked map[string]bool
}

func (p *recordedProbe) note(question string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[question] = true
}

func (p *recordedProbe) Locate(name string) (string, int, error) {
	name = path.Clean(name)
	for from, to := range p.Links {
		if contains(from, name) {
			return p.Locate(to + strings.TrimPrefix(name, from))
		}
	}
	if slices.ContainsFunc(p.Silent, func(s string) bool { return contains(s, name) && name != s }) {
		return "", 0, &fs.PathError{Op: "open", Path: name, Err: syscall.EHOSTDOWN}
	}
	if slices.Contains(p.Missing, name) {
		return "", 0, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return name, 0, nil
}

func (p *recordedProbe) FileSystem(point string, mount int) (Facts, error) {
	p.note(point)
	if slices.Contains(p.Covered, point) {
		return Facts{}, errors.New("another mount shows this path")
	}
	f, ok := p.FileSystems[point]
	if !ok {
		return Facts{}, fmt.Errorf("the archive has no answer")
	}
	return f, nil
}

func (p *recordedProbe) Superblock(node, number string) (uuid, label string, err error) {
	key := filepath.Base(node) + " " + number
	p.note(key)
	s, ok := p.Superblocks[key]
	if !ok {
		return "", "", &fs.PathError{Op: "open", Path: "/dev/" + filepath.Base(node), Err: syscall.ENOENT}
	}
	return s["UUID"], s["Label"], nil
}

func (p *recordedProbe) PartitionType(disk, number string, partition int) (string, error) {
	key := fmt.Sprintf("%s %s %d", filepath.Base(disk), number, partition)
	p.note(key)
	typ, ok := p.Partitions[key]
	if !ok {
		return "", &fs.PathError{Op: "open", Path: "/dev/" + filepath.Base(disk), Err: syscall.ENOENT}
	}
	return typ, nil
}

// unasked lists answers of the archive that nobody wanted.
func (p *recordedProbe) unasked() []string {
	all := slices.Concat(slices.Collect(maps.Keys(p.FileSystems)), slices.Collect(maps.Keys(p.Superblocks)),
		slices.Collect(maps.Keys(p.Partitions)))
	all = slices.DeleteFunc(all, func(q string) bool { return p.asked[q] })
	slices.Sort(all)
	return all
}

func readHost(t *testing.T, h recordedHost) *Table {
	t.Helper()
	table, err := Read(context.Background(), h.Roots)
	if err != nil {
		t.Fatal(err)
	}
	return table
}
