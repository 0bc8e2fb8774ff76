package cow

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
)

// holderCache tells TestHolder where its cache file goes.
const holderCache = "STILLPOINT_TEST_HOLDER_CACHE"

// The process that holds a snapshot is killed, and the volume of its cache file
// takes long for everything: as long as a freeze of it lasts here, as a busy disk
// may need. Who writes does not wait for that, neither for the cache file to be
// deleted nor for a thread that was writing to it, and keeps the process alive.
func TestSlowEnd(t *testing.T) {
	t.Run("idle", func(t *testing.T) { slowEnd(t, false) })
	t.Run("saving", func(t *testing.T) { slowEnd(t, true) })
}

func slowEnd(t *testing.T, saving bool) {
	each(t, func(t *testing.T, r *rig) {
		cache := scratch.New(t, "ext4", 300*scratch.MiB)
		r.must(os.WriteFile(r.path("file"), make([]byte, 8<<20), 0o644))
		c := exec.Command(os.Args[0], "-test.run=^TestHolder$")
		c.Env = append(os.Environ(), holderVariable+"="+r.dir, holderCache+"="+cache.Dir)
		in, err := c.StdinPipe()
		r.must(err)
		defer in.Close()
		out, err := c.StdoutPipe()
		r.must(err)
		r.must(c.Start())
		line := make([]byte, 200)
		if n, _ := out.Read(line); !strings.HasPrefix(string(line[:n]), "root ") {
			t.Fatalf("the holder says %q", line[:n])
		}
		write := func(at int64) {
			f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
			r.must(err)
			_, err = f.WriteAt([]byte("changed"), at)
			r.must(errors.Join(err, f.Close()))
		}
		write(0)
		r.must(exec.Command("sync", "--file-system", cache.Dir).Run()) // the cache file has blocks
		dir, err := os.Open(cache.Dir)
		r.must(err)
		defer dir.Close()
		r.must(freeze.Freeze(dir))
		thawed := time.AfterFunc(5*time.Second, func() { _ = freeze.Thaw(dir) })
		defer func() {
			if thawed.Stop() {
				r.must(freeze.Thaw(dir))
			}
			_ = c.Wait()
		}()
		longest := time.Duration(0)
		var writing sync.WaitGroup
		if saving {
			writing.Go(func() {
				began := time.Now()
				write(7 << 20)
				longest = time.Since(began)
			})
			waitFor(t, func() bool { return waits(c.Process.Pid) })
		}
		r.must(c.Process.Signal(syscall.SIGKILL))
		writing.Wait()
		end := time.Now().Add(2 * time.Second)
		for at := int64(4096); time.Now().Before(end) && at < 7<<20; at += 4096 {
			began := time.Now()
			write(at)
			longest = max(longest, time.Since(began))
		}
		t.Logf("the longest wait was %v", longest)
		if longest > time.Second {
			t.Errorf("a write waited for %v", longest)
		}
	})
}

// waits tells whether a thread of a process waits for a disk.
func waits(pid int) bool {
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	return slices.ContainsFunc(all, func(name string) bool {
		b, _ := os.ReadFile(name)
		_, rest, _ := strings.Cut(string(b), ") ")
		return strings.HasPrefix(rest, "D ")
	})
}
