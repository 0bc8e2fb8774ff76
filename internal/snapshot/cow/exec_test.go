package cow

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/process"
)

// A stall is a file system with one file, whose server does not answer when it
// is closed, until it is released.
type stall struct {
	fs.Inode
	release, flushing chan struct{}
}

func (s *stall) OnAdd(ctx context.Context) {
	s.AddChild("file", s.NewPersistentInode(ctx, &stallFile{stall: s}, fs.StableAttr{Mode: fuse.S_IFREG}), false)
}

type stallFile struct {
	fs.Inode
	stall *stall
}

func (f *stallFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return f, 0, 0
}

func (f *stallFile) Flush(context.Context, fs.FileHandle) syscall.Errno {
	select {
	case f.stall.flushing <- struct{}{}:
	default:
	}
	<-f.stall.release
	return 0
}

const execVariable = "STILLPOINT_TEST_EXEC"

// TestExecHangsChild becomes another program when it is told to, which closes
// the file.
func TestExecHangsChild(t *testing.T) {
	path := os.Getenv(execVariable)
	if path == "" {
		return // is run by TestExecHangs only
	}
	_, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	fmt.Println("ready")
	_, _ = io.ReadFull(os.Stdin, make([]byte, 1))
	must(t, syscall.Exec("/bin/true", []string{"true"}, nil))
}

// hanging starts a process. hang makes it hang between two programs until end.
func hanging(t *testing.T) (pid int, hang, end func()) {
	t.Helper()
	s := &stall{release: make(chan struct{}), flushing: make(chan struct{}, 1)}
	dir := t.TempDir()
	server, err := fs.Mount(dir, s, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	must(t, err)
	c := exec.Command(os.Args[0], "-test.run=^TestExecHangsChild$")
	c.Env = append(os.Environ(), execVariable+"="+dir+"/file")
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	end = sync.OnceFunc(func() {
		close(s.release)
		in.Close()
		_ = c.Wait()
		_ = server.Unmount()
	})
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return c.Process.Pid, func() {
		t.Helper()
		_, err := in.Write([]byte("x"))
		must(t, err)
		select {
		case <-s.flushing:
		case <-time.After(20 * time.Second):
			t.Fatal("it does not hang")
		}
	}, end
}

// A process that hangs between two programs, because a server does not answer
// when its files are closed, keeps everybody waiting who looks at it in /proc.
// Nobody waits for that: before the instant the set is refused by its name, and
// after the search for what is hot it does no harm.
func TestExecHangs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		pid, hang, end := hanging(t)
		hang()
		for range 2 {
			began := time.Now()
			if process.Answers(pid) {
				t.Error("it answers")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			stuck, err := process.Drain(ctx)
			cancel()
			r.must(err)
			for _, s := range stuck {
				if s.PID == pid {
					t.Error("it sleeps, and is taken for one who is about to write")
				}
			}
			_, err = process.StuckWorkers()
			r.must(err)
			if _, ok := process.DescriptorsInTime(pid, 0); ok {
				t.Error("it shows its descriptors")
			}
			t.Logf("looked at after %v", time.Since(began))
		}
		var err error
		if longest := r.longest(func() { _, err = r.try(nil) }); longest > window/2 {
			t.Errorf("a write waited for %v", longest)
		}
		if problem.CodeOf(err) != problem.UnshieldedFiles || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", pid)) {
			t.Errorf("while it hangs: %v", err)
		}
		end()
		waitFor(t, func() bool { return process.Answers(pid) }) // that is, it is gone

		pid, hang, end = hanging(t)
		pending, err := r.p.Prepare(t.Context(), "hangs", []snapshot.Target{r.target})
		r.must(err)
		defer func() { r.must(pending.Abort(context.Background())) }()
		longest := r.longest(func() {
			r.must(pending.Hold(t.Context()))
			hang()
			_, err = pending.Commit(t.Context())
			r.must(pending.Resume(t.Context()))
		})
		r.must(err)
		if longest > window*3/4 {
			t.Errorf("a write waited for %v", longest)
		}
		t.Logf("the longest wait was %v", longest)
		end()
		waitFor(t, func() bool { return process.Answers(pid) })
		r.must(pending.(*set).targets[0].Release(context.Background()))
	})
}
