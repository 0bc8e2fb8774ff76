package holder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
)

// What a child of these tests is: how it fails, the volume, and the socket of
// its holder.
const (
	childHow  = "STILLPOINT_TEST_HOW"
	childDir  = "STILLPOINT_TEST_DIR"
	childPath = "STILLPOINT_TEST_PATH"
)

func TestMain(m *testing.M) {
	Main()
	switch how := os.Getenv(childHow); how {
	case "":
		os.Exit(m.Run())
	case "foreign":
		foreign(os.Getenv(childPath))
	default:
		reader(how, os.Getenv(childDir), os.Getenv(childPath))
	}
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// reader is an agent that reads all events and answers none. "silent", it stops
// beating when the first has come; "far" has so many files open that the holder
// cannot know the numbers of the events.
func reader(how, dir, path string) {
	root, err := os.Open(dir)
	check(err)
	mount, err := inode.Clone(root)
	check(err)
	group, err := fanotify.Open()
	check(err)
	check(group.Silence(mount))
	check(group.Watch(mount))
	h, err := Start(path, time.Minute)
	check(err)
	check(h.Keep(Filter{Name: "first", Since: time.Unix(7, 0), Group: group, Mount: mount}))
	check(h.Keep(Filter{Name: "other", Since: time.Unix(8, 0), Group: group, Mount: mount}))
	check(h.Forget("other"))
	check(h.Forget("nosuch"))
	if how == "far" {
		makeFar(h, group, mount)
	}
	fmt.Println("holder", h.PID())
	_, err = os.Stdin.Read(make([]byte, 1)) // until the test has its files open
	check(err)
	h.Beat(Pulse{Armed: true})
	check(group.Arm(mount))
	fmt.Println("armed", 0)
	go func() { // the test has ended, however that came
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(2)
	}()
	var highest atomic.Int64
	go func() {
		for ; how != "silent" || highest.Load() == 0; time.Sleep(Heart / 10) {
			p := Pulse{Armed: true, Highest: int(highest.Load())}
			if how == "far" {
				p.Highest = 0
			}
			h.Beat(p)
		}
	}()
	for b := fanotify.NewBuffer(1); ; {
		events, err := group.Read(b)
		check(err)
		for _, e := range events {
			highest.Store(max(highest.Load(), int64(e.FD)))
			fmt.Println("held", e.FD)
		}
	}
}

// makeFar has many files open, and tells the holder that it could have still
// more, so that the holder has much to do.
func makeFar(h *Holder, group *fanotify.Permission, mount *os.File) {
	for range near + 100 {
		_, err := syscall.Dup(0)
		check(err)
	}
	dup, err := group.File()
	check(err)
	defer dup.Close()
	check(h.ask(message{op: opKeep, a: since(time.Unix(7, 0)), b: 1 << 20, name: "first"}, int(dup.Fd()), int(mount.Fd())))
}

// foreign is a holder of another version.
func foreign(path string) {
	l, err := net.Listen("unixpacket", path)
	check(err)
	fmt.Println("holder", os.Getpid())
	go func() { // the test has ended, however that came
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(2)
	}()
	for {
		c, err := l.Accept()
		check(err)
		b := make([]byte, 1000)
		_, err = c.Read(b)
		check(err)
		_, err = c.Write((&message{op: opHello, name: "stillpoint-holder/0"}).bytes())
		check(err)
	}
}

// A child is a running one.
type child struct {
	*exec.Cmd
	t      *testing.T
	lines  *bufio.Scanner
	in     io.WriteCloser
	holder int
	path   string
	ended  chan struct{}
}

func startChild(t *testing.T, how, dir string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe"), t: t, path: filepath.Join(t.TempDir(), "holder"), ended: make(chan struct{})}
	c.Env = append(os.Environ(), childHow+"="+how, childDir+"="+dir, childPath+"="+c.path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		c.wait()
		if c.holder > 0 && alive(c.holder) {
			_ = syscall.Kill(c.holder, syscall.SIGKILL)
			c.gone()
		}
	})
	c.lines = bufio.NewScanner(out)
	word, number := c.line()
	if c.holder = number; word != "holder" {
		t.Fatalf("the child says %q", word)
	}
	return c
}

// line is a word and a number.
func (c *child) line() (string, int) {
	c.t.Helper()
	if !c.lines.Scan() {
		c.t.Fatal("the child has ended")
	}
	word, number, _ := strings.Cut(c.lines.Text(), " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		c.t.Fatalf("the child says %q", c.lines.Text())
	}
	return word, n
}

func (c *child) wait() {
	select {
	case <-c.ended:
	default:
		_ = c.Wait()
		close(c.ended)
	}
}

// gone waits until the holder has ended.
func (c *child) gone() {
	c.t.Helper()
	for end := time.Now().Add(10 * time.Second); alive(c.holder); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("the holder %d is left", c.holder)
		}
	}
}

// alive tells whether a process runs. One whose new parent has not looked yet
// is a zombie without other threads.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && (!strings.Contains(string(b), ") Z ") || len(threads) > 1)
}

func onVolumes(t *testing.T, f func(t *testing.T, dir string)) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { f(t, scratch.New(t, kind, 320*scratch.MiB).Dir) })
	}
}

// adopt takes the filters over, and sees that there is one.
func adopt(t *testing.T, path string) *Estate {
	t.Helper()
	e, err := Adopt(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Filters) != 1 || e.Filters[0].Name != "first" || !e.Filters[0].Since.Equal(time.Unix(7, 0)) {
		t.Fatalf("there are %+v", e.Filters)
	}
	t.Cleanup(func() {
		if err := e.Filters[0].Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return e
}
