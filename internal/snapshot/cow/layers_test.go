package cow

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Ways through a file system that lies on the volume and changes its files
// from within the kernel, of which some make no event.
func TestLayers(t *testing.T) {
	for name, do := range map[string]func(r *rig, path string) func(){
		"write": (*rig).writes,
		"store": (*rig).stores,
		"truncate open": func(r *rig, path string) func() {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			r.must(err)
			r.Cleanup(func() { f.Close() })
			return func() { r.must(errors.Join(f.Truncate(wayAt+5000), f.Truncate(waySize))) }
		},
		"truncate": func(r *rig, path string) func() {
			return func() { r.must(errors.Join(os.Truncate(path, wayAt+5000), os.Truncate(path, waySize))) }
		},
		"open truncating": func(r *rig, path string) func() {
			return func() { r.must(os.WriteFile(path, bytes.Repeat([]byte("Z"), waySize), 0)) }
		},
		"splice": func(r *rig, path string) func() {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			r.must(err)
			r.Cleanup(func() { f.Close() })
			return func() { r.must(spliceInto(f)) }
		},
		"punch": func(r *rig, path string) func() {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			r.must(err)
			r.Cleanup(func() { f.Close() })
			return func() {
				r.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, wayAt+4096, 8192))
			}
		},
	} {
		t.Run("overlay/"+name, func(t *testing.T) { tryWay(t, way{prepare: elsewhere((*rig).overlay, do)}) })
		t.Run("passthrough/"+name, func(t *testing.T) {
			hidden := name == "store" || name == "splice"
			tryWay(t, way{prepare: elsewhere((*rig).passthrough, do), hidden: hidden})
		})
	}
}

func spliceInto(f *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = w.Write(bytes.Repeat([]byte("Z"), 8192))
	w.Close()
	at := int64(wayAt + 4096)
	for left := 8192; err == nil && left > 0; {
		var n int64
		if n, err = unix.Splice(int(r.Fd()), nil, int(f.Fd()), &at, left, 0); n == 0 && err == nil {
			return errors.New("splice: nothing")
		}
		left -= int(n)
	}
	return err
}

// overlay mounts one whose upper directory is all of the volume but its work
// directory.
func (r *rig) overlay() string {
	r.Helper()
	r.must(os.Mkdir(r.path("work"), 0o700))
	lower, point := r.TempDir(), r.TempDir()
	r.must(unix.Mount("overlay", point, "overlay", 0, "lowerdir="+lower+",upperdir="+r.path("ways")+",workdir="+r.path("work")))
	r.Cleanup(func() { r.must(unix.Unmount(point, 0)) })
	outer := r.TempDir()
	r.must(os.Mkdir(filepath.Join(outer, "ways"), 0o755))
	if out, err := exec.Command("mount", "--bind", point, filepath.Join(outer, "ways")).CombinedOutput(); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	r.Cleanup(func() { r.must(unix.Unmount(filepath.Join(outer, "ways"), 0)) })
	return outer
}

// passthrough mounts a FUSE file system whose files the kernel reads and writes
// itself, through descriptors that the server has opened and closed.
func (r *rig) passthrough() string {
	r.Helper()
	root, err := fs.NewLoopbackRoot(r.dir)
	r.must(err)
	point := r.TempDir()
	server, err := fs.Mount(point, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true}})
	r.must(err)
	r.Cleanup(func() {
		waitFor(r.T, func() bool { return !r.inUse() }) // the server learns later that a file is closed
		r.must(server.Unmount())
	})
	if server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		r.Fatal("the kernel has no FUSE passthrough")
	}
	return point
}

// An overlay that is mounted after the instant: files that its upper directory
// had before are changed through it.
func TestOverlayLater(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.Mkdir(r.path("ways"), 0o755))
		originals := map[string][]byte{}
		for _, name := range []string{"ways/store", "ways/truncate", "ways/store-written", "ways/truncate-written"} {
			originals[name] = bytes.Repeat([]byte("o"), waySize)
			r.must(os.WriteFile(r.path(name), originals[name], 0o644))
		}
		r.run("sync", "-f", r.dir)
		s := r.take(nil)
		point := r.overlay()
		for name := range originals {
			path := filepath.Join(point, name)
			if strings.HasSuffix(name, "-written") {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				r.must(err)
				_, err = f.WriteAt([]byte("WRITTEN"), 0)
				r.must(errors.Join(err, f.Close()))
			}
			if strings.HasPrefix(name, "ways/store") {
				r.stores(path)()
			} else {
				r.must(errors.Join(os.Truncate(path, wayAt+5000), os.Truncate(path, waySize)))
			}
		}
		r.run("sync", "-f", r.dir)
		r.unmixed(s, originals, false)
	})
}

// inUse tells whether this process has files of the volume open.
func (r *rig) inUse() bool {
	fds, err := os.ReadDir("/proc/self/fd")
	r.must(err)
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, r.dir+"/") {
			return true
		}
	}
	return false
}
