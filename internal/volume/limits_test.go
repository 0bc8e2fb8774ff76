package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
)

// A deadProbe never answers about some file systems and paths.
type deadProbe struct {
	*recordedProbe
	dead    func(string) bool
	forever chan struct{}
}

func (p deadProbe) FileSystem(point string, mount int) (Facts, error) {
	if p.dead(point) {
		<-p.forever
	}
	return Facts{Size: 1}, nil
}

func (p deadProbe) Locate(path string) (string, int, error) {
	if p.dead(path) {
		<-p.forever
	}
	return path, 0, nil
}

// manyMounts makes a host with a root and n others of a type below it.
func manyMounts(t testing.TB, n int, line string) Roots {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
	for i := range n {
		fmt.Fprintf(&b, line+"\n", i+10, i+10)
	}
	writeFile(t, filepath.Join(dir, "proc/self/mountinfo"), b.String())
	return Roots{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev"), Udev: dir}
}

// TestDeadFileSystem: local file systems that do not answer cost readLimit in
// all, and the others are still there.
func TestDeadFileSystem(t *testing.T) {
	for _, dead := range []int{0, 1, 2, 10} {
		t.Run(fmt.Sprint(dead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				roots := manyMounts(t, 20, "%d 1 8:%d / /m%[1]d rw - ext4 /dev/x rw")
				probe := deadProbe{&recordedProbe{asked: map[string]bool{}}, func(p string) bool {
					var n int
					_, err := fmt.Sscanf(p, "/m%d", &n)
					return err == nil && n < 10+dead
				}, make(chan struct{})}
				defer close(probe.forever)
				roots.Probe = probe
				start := time.Now()
				table, err := Read(context.Background(), roots)
				if err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d > readLimit || d < min(time.Duration(dead)*answerLimit, readLimit) {
					t.Errorf("took %s", d)
				}
				if n := len(table.Volumes()); n != 21 {
					t.Errorf("got %d volumes", n)
				}
				unknown := 0
				for _, v := range table.Volumes() {
					if v.Size == 0 {
						unknown++
					}
				}
				if dead < 3 && unknown != dead {
					t.Errorf("%d sizes unknown", unknown)
				}
				if all := fmt.Sprint(table.Warnings()); strings.Count(all, "sizes of") != unknown {
					t.Errorf("%d sizes unknown, but warnings %s", unknown, all)
				}
			})
		})
	}
}

// TestReadCancelled: the context ends a wait.
func TestReadCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roots := manyMounts(t, 0, "")
		probe := deadProbe{nil, func(string) bool { return true }, make(chan struct{})}
		defer close(probe.forever)
		roots.Probe = probe
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := Read(ctx, roots); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("took %s", d)
		}
	})
}

// TestDeadPath: the lookup of a path on a dead server ends, and says why.
func TestDeadPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roots := manyMounts(t, 1, "%d 1 0:%d / /m rw - nfs4 server:/x rw")
		probe := deadProbe{&recordedProbe{asked: map[string]bool{}}, func(p string) bool { return p != "/" }, make(chan struct{})}
		defer close(probe.forever)
		roots.Probe = probe
		table, err := Read(context.Background(), roots)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]problem.Code{"/m/x": problem.VolumeNetwork, "/m": problem.VolumeNetwork, "/elsewhere": problem.VolumeLost} {
			start := time.Now()
			_, _, _, err := table.Find(path)
			if problem.CodeOf(err) != want || !errors.Is(err, errNoAnswer) {
				t.Errorf("Find(%q): got %v, want %s", path, err, want)
			}
			if d := time.Since(start); d != locateLimit {
				t.Errorf("Find(%q) took %s", path, d)
			}
		}
	})
}

// BenchmarkRead reads a host with 2,000 containers: overlay file systems of
// twelve layers, shared memory and name spaces.
func BenchmarkRead(b *testing.B) {
	layers := make([]string, 12)
	for i := range layers {
		layers[i] = fmt.Sprintf("/var/lib/docker/overlay2/l/3XJ5KQ2ZC4W7V6N5B4M3L2K%03d", i)
	}
	dir := "/var/lib/docker/overlay2/5d0a7a6fba0c5c0b1c1a3c3fbb4a4ce9a9f5c0a7d5ec0ff0b62a0f6d7f%06[1]d"
	overlay := "%[1]d 1 0:%[1]d / " + dir + "/merged rw,relatime shared:%[1]d - overlay overlay rw,lowerdir=" +
		strings.Join(layers, ":") + ",upperdir=" + dir + "/diff,workdir=" + dir + "/work,nouserxattr"
	shm := "%[1]d 1 0:%[1]d / /var/lib/docker/containers/5d0a7a6fba0c5c0b1c1a3c3fbb4a4ce9a9f5c0a7d5ec0ff0b62a0f6d7f%06[1]d/mounts/shm rw - tmpfs shm rw"
	for name, lines := range map[string]int{"overlays": 1, "containers": 2} {
		b.Run(name, func(b *testing.B) {
			var text strings.Builder
			text.WriteString("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
			for i := range 2000 {
				fmt.Fprintf(&text, overlay+"\n", 100+i)
				if lines > 1 {
					fmt.Fprintf(&text, shm+"\n", 10000+i)
				}
			}
			roots := manyMounts(b, 0, "")
			writeFile(b, filepath.Join(roots.Proc, "self/mountinfo"), text.String())
			roots.Probe = deadProbe{nil, func(string) bool { return false }, nil}
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				table, err := Read(context.Background(), roots)
				if err != nil || len(table.Volumes()) != 2000*lines+1 || len(table.Below("/")) != 2000*lines {
					b.Fatal(err, len(table.Volumes()))
				}
			}
		})
	}
}
