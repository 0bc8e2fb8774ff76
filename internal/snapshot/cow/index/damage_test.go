package index

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// A file whose inode is damaged is named, and the rest is indexed.
func TestDamagedInode(t *testing.T) {
	v, device := newVolumeOn(t, "ext4", sizes["ext4"])
	for i := range 40 {
		if err := os.WriteFile(v.path(fmt.Sprint(i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(v.path("20"), &st); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "sync", "-f", v.dir)
	out := scratch.Run(t, "debugfs", "-R", fmt.Sprintf("imap <%d>", st.Ino), device)
	m := regexp.MustCompile(`located at block (\d+), offset 0x([0-9a-f]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("debugfs says %q", out)
	}
	block, _ := strconv.ParseInt(m[1], 10, 64)
	offset, _ := strconv.ParseInt(m[2], 16, 64)
	d, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Its owner; the checksum does not fit any more.
	if _, err := d.WriteAt([]byte{1, 2}, block*int64(st.Blksize)+offset+2); err != nil {
		t.Fatal(err)
	}
	d.Close()
	for range 2 { // a cache entry that was used gets another chance
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			t.Fatal(err)
		}
	}
	err = unix.Stat(v.path("20"), &st)
	if err == nil {
		t.Fatal("the inode could not be damaged")
	}
	b := build(t, v, Options{Keeper: keeper(t)}, ".")
	v.frozen(t, func() {
		x, err := b.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
		f := x.Faults()
		if len(f) != 1 || f[0].Name != "20" || f[0].Dir != x.Root().Number || !errors.Is(f[0].Err, syscall.EBADMSG) {
			t.Errorf("faults: %+v", f)
		}
		if n := x.Len(); n != 1+39+1 { // the root, the other files, lost+found
			t.Errorf("%d files", n)
		}
	})
}
