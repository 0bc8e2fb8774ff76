package sqlite

import (
	"fmt"
	"os"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/writer"
)

// What the disk's list of inodes tells spares asking, and loses no database: none
// that was written and is not on the disk yet, none that is newer than the list, and
// none that was made longer before.
func TestKnown(t *testing.T) {
	v := scratch.New(t, "btrfs", 256*scratch.MiB)
	content, err := os.ReadFile(create(t, t.TempDir()+"/x.db", "delete").path)
	must(t, err)
	const directories, each = 30, 100
	want := map[string]bool{}
	put := func(d int, name string, content []byte) string {
		path := fmt.Sprintf("%s/%d/%s", v.Dir, d, name)
		must(t, os.WriteFile(path, content, 0o644))
		return path
	}
	var grown []string
	for d := range directories {
		must(t, os.Mkdir(fmt.Sprintf("%s/%d", v.Dir, d), 0o755))
		for n := range each {
			put(d, fmt.Sprint(n), content[:100+n])
		}
		put(d, "page", make([]byte, smallest))
		want[put(d, "x.db", content)] = true
		grown = append(grown, put(d, "grown.db", nil))
	}
	scratch.Run(t, "sync", "--file-system", v.Dir)
	for d, path := range grown { // the disk knows them as empty
		must(t, os.WriteFile(path, content, 0o644))
		want[path] = true
		want[put(d, "late.db", content)] = true
	}

	f := &finding{seen: map[inode]bool{}, found: map[inode]hit{}}
	info, err := file.Stat(file.Here, v.Dir, file.NoFollow)
	must(t, err)
	s := f.search(t.Context(), 0, v.Dir, info.Device)
	defer s.known.close()
	s.known.began = time.Now().Add(-time.Hour)
	s.known.open()
	for d := range directories { // the list has them as empty
		want[put(d, "meanwhile.db", content)] = true
	}
	s.known.read()
	if s.known.dir != nil || len(s.known.no) == 0 {
		t.Fatal("the list was not read")
	}
	for d := range directories {
		want[put(d, "new.db", content)] = true
	}
	s.folders(folder{v.Dir, info.Mount})
	must(t, s.result())
	for _, h := range f.found {
		if !want[h.path] {
			t.Errorf("%s is found", h.path)
		}
	}
	if len(f.found) != len(want) {
		t.Errorf("%d are found, want %d", len(f.found), len(want))
	}
	if asked := s.known.asked.Load(); asked < int64(len(want)) || asked > int64(len(want)+2*directories) {
		t.Errorf("%d were asked for", asked)
	}

	all, err := New(Options{}).Discover(t.Context(), writer.Scope{Paths: []string{v.Dir}})
	must(t, err)
	if len(all) != len(want) {
		t.Errorf("by itself: %d are found, want %d", len(all), len(want))
	}
}

// The list of something else that is mounted at the path meanwhile is not read.
func TestKnownElsewhere(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB)
	info, err := file.Stat(file.Here, v.Dir, file.NoFollow)
	must(t, err)
	for device, want := range map[uint64]bool{info.Device: true, info.Device + 1: false} {
		f := &finding{seen: map[inode]bool{}, found: map[inode]hit{}}
		s := f.search(t.Context(), 0, v.Dir, device)
		s.known.open()
		if got := s.known.dir != nil; got != want {
			t.Errorf("of the same device %t, read %t", want, got)
		}
		s.known.close()
	}
}

// A set of numbers has what was added.
func TestNumbers(t *testing.T) {
	s, added := numbers{}, []uint64{0, 63, 64, 511, 512, 65535, 65536, 1 << 40, 1<<64 - 1}
	for _, n := range added {
		if s.has(n) {
			t.Errorf("%d is there already", n)
		}
		s.add(n)
	}
	for _, n := range added {
		if !s.has(n) || s.has(n^2) {
			t.Errorf("%d: %t, %d: %t", n, s.has(n), n^2, s.has(n^2))
		}
	}
}
