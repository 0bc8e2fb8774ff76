package btrfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/btrfs"
)

// The list of inodes says after a sync what stat says, of one subvolume, from any
// number on, and ends when it is told to.
func TestInodes(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB)
	top := open(t, v.Dir)
	must(t, btrfs.Create(top, "sub"))
	must(t, os.WriteFile(v.Dir+"/sub/far", []byte("of another subvolume"), 0o600))
	const files = 1000
	for i := range files {
		must(t, os.WriteFile(filepath.Join(v.Dir, fmt.Sprint(i)), make([]byte, 7*i), 0o600))
	}
	must(t, os.Truncate(v.Dir+"/1", 1<<40))
	must(t, os.Symlink("far", v.Dir+"/link"))
	scratch.Run(t, "sync", "--file-system", v.Dir)
	want := map[uint64]syscall.Stat_t{}
	names, err := filepath.Glob(v.Dir + "/*")
	must(t, err)
	var middle uint64
	for _, path := range append(names, v.Dir) {
		if filepath.Base(path) == "sub" {
			continue
		}
		var st syscall.Stat_t
		must(t, syscall.Lstat(path, &st))
		want[st.Ino] = st
		if filepath.Base(path) == fmt.Sprint(files/2) {
			middle = st.Ino
		}
	}
	on := func() bool { return true }
	seen := 0
	must(t, btrfs.Inodes(top, 0, func(i btrfs.Inode) {
		st, ok := want[i.Number]
		if !ok || st.Mode != i.Mode || st.Size != int64(i.Size) {
			t.Errorf("%+v, want %o, %d (%t)", i, st.Mode, st.Size, ok)
		}
		seen++
	}, on))
	if seen != len(want) {
		t.Errorf("%d inodes, want %d", seen, len(want))
	}
	first := uint64(0)
	must(t, btrfs.Inodes(top, middle, func(i btrfs.Inode) {
		if first == 0 {
			first = i.Number
		}
	}, on))
	if first != middle {
		t.Errorf("the first from %d on is %d", middle, first)
	}
	seen = 0
	must(t, btrfs.Inodes(top, 0, func(btrfs.Inode) { seen++ }, func() bool { return false }))
	if seen == 0 || seen >= files {
		t.Errorf("%d of %d before it ended", seen, len(want))
	}
}
