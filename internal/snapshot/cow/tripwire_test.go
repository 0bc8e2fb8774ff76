package cow

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
)

// A loop device writes to its backing file without an event. Found by the scan
// it is hot; where the scan is kept from finding it, each reading of what it
// changed fails and says so.
func TestLoopWritesBehindOurBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		original := bytes.Repeat([]byte("original"), 1<<20/8)
		r.must(os.WriteFile(r.path("image"), original, 0o644))
		out, err := exec.Command("losetup", "--find", "--show", "--direct-io=off", r.path("image")).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		device := strings.TrimSpace(string(out))
		t.Cleanup(func() { r.must(exec.Command("losetup", "--detach", device).Run()) })
		write := func(text string) {
			f, err := os.OpenFile(device, os.O_WRONLY|syscall.O_SYNC, 0)
			r.must(err)
			_, err = f.WriteAt(bytes.Repeat([]byte(text), 4096/len(text)), 64<<10)
			r.must(errors.Join(err, f.Close()))
		}

		s := r.take(nil)
		write("changed!")
		if !bytes.Equal(r.read(s, "image"), original) {
			t.Error("a hot file shows the change")
		}
		r.must(s.Release(t.Context()))

		write("original")
		r.p.o.cold = func(u hot.Use) bool { return u.Kind == hot.Loop }
		s = r.take(nil)
		write("changed!")
		_, err = os.ReadFile(filepath.Join(s.Root(), "image"))
		if !errors.Is(err, syscall.EBADMSG) {
			t.Errorf("reading a torn file: %v", err)
		}
		r.must(s.Err())
		wantGap(t, s, "image", problem.FileTorn)
		r.must(s.Release(t.Context()))

		// The same, and then a change that is seen: what was changed unseen
		// must not be saved as if it were the original.
		write("original")
		s = r.take(nil)
		write("changed!")
		f, err := os.OpenFile(r.path("image"), os.O_WRONLY|os.O_APPEND, 0)
		r.must(err)
		_, err = f.WriteString("more")
		r.must(errors.Join(err, f.Close()))
		if _, err := os.ReadFile(filepath.Join(s.Root(), "image")); !errors.Is(err, syscall.EBADMSG) {
			t.Errorf("reading a torn file that was changed again: %v", err)
		}
	})
}

func wantGap(t *testing.T, s snapshot.Snapshot, path string, code problem.Code) {
	t.Helper()
	gaps := s.Gaps()
	if len(gaps) != 1 || gaps[0].Path != path || gaps[0].Code != code {
		t.Errorf("gaps are %+v, want %s of %s", gaps, code, path)
	}
}

// A splice from a pipe into which nobody writes would keep a freeze waiting for
// ever, and everybody else with it. It is made to begin anew, and goes on later
// as if nothing had been.
func TestSpliceFromEmptyPipe(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		f, err := os.Create(r.path("file"))
		r.must(err)
		defer f.Close()
		c := exec.Command(os.Args[0], "-test.run=^TestSpliceChild$")
		in, out, err := os.Pipe()
		r.must(err)
		c.ExtraFiles = []*os.File{in, f}
		c.Env = append(os.Environ(), "STILLPOINT_TEST_SPLICE=1")
		r.must(c.Start())
		in.Close()
		defer func() { out.Close(); _ = c.Process.Kill(); _ = c.Wait() }()
		waitFor(t, func() bool {
			threads, _ := filepath.Glob("/proc/" + itoa(c.Process.Pid) + "/task/*/syscall")
			return slices.ContainsFunc(threads, func(path string) bool {
				b, _ := os.ReadFile(path)
				return strings.HasPrefix(string(b), itoa(unix.SYS_SPLICE)+" ")
			})
		})
		for range 3 {
			began := time.Now()
			s, err := r.try(nil)
			r.must(err)
			if took := s.held; took > window {
				t.Errorf("writers waited for %v", took)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if b := r.read(s, "file"); len(b) != 0 {
				t.Errorf("the snapshot shows %q", b)
			}
			r.must(s.Release(t.Context()))
			r.must(os.WriteFile(r.path("other"), []byte("goes on"), 0o644))
		}
		_, err = out.WriteString("at last")
		r.must(err)
		r.must(c.Wait())
		b, err := os.ReadFile(r.path("file"))
		r.must(err)
		if string(b) != "at last" {
			t.Errorf("what was spliced is %q", b)
		}
	})
}

func TestSpliceChild(t *testing.T) {
	if os.Getenv("STILLPOINT_TEST_SPLICE") == "" {
		return // is run by TestSpliceFromEmptyPipe only
	}
	_, _ = unix.Splice(3, nil, 4, nil, 4096, 0)
}
