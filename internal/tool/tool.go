// Package tool runs the programs of the system: one command and its output, or
// a child to talk with. It is the only importer of os/exec. A program runs in
// the C locale, with a fixed search path and nothing else of our environment,
// in a process group of its own; it has a deadline, and what it may print is
// limited. Its failure keeps the command, the exit code and what it said. The
// package never tries anything twice: the caller knows whether that is safe.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Timeout is how long a command may run when its context sets no deadline.
const Timeout = time.Minute

// grace is how long a killed program is waited for. One that hangs in the
// kernel dies only when that lets go of it.
const grace = 5 * time.Second

// Limits of what is kept of a program's output.
const (
	outputLimit = 16 << 20
	stderrLimit = 16 << 10
)

// path is where programs are looked for, whatever our own PATH says.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A Command is a program to run. The zero value of every field but Name will
// do.
type Command struct {
	Name  string   // looked for in the fixed path, unless it has a slash
	Args  []string // without the name
	Dir   string   // "" for the root directory, which is never unmounted
	Env   []string // added to the fixed environment: "KEY=value"
	Stdin io.Reader
	Whole bool // it must not be killed: see Run
}

// An Error is the failure of a command.
type Error struct {
	Command []string // name and arguments
	Code    int      // exit code, -1 when it did not exit by itself
	Stderr  string   // the end of what it said, without white space around it
	Err     error    // *exec.ExitError, context.DeadlineExceeded, fs.ErrNotExist, ErrOutput …

	// Ended is closed when a program has ended after all for which Err is
	// ErrStuck; else it is nil.
	Ended <-chan struct{}
}

// ErrOutput says that a program printed more than is allowed, and was killed.
var ErrOutput = errors.New("too much output")

// ErrStuck says that a program was killed, or asked to end where it must not be
// killed, and has not ended: it hangs in the kernel, and may go on one day.
var ErrStuck = errors.New("told to end, but still there")

func (e *Error) Error() string {
	s := strings.Join(e.Command, " ") + ": " + e.Err.Error()
	if e.Stderr != "" {
		s += ": " + strings.ReplaceAll(e.Stderr, "\n", "; ")
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Run runs a program to its end and returns what it printed.
func Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return Command{Name: name, Args: args}.Run(ctx)
}

// Run runs c to its end and returns what it printed. When the context is over
// it kills the program with all that it started, and returns within seconds,
// also if the program hangs in the kernel. An error is an *Error; the output up
// to then comes with it.
//
// A Whole program is asked to end, by SIGTERM, and then left alone: what it was
// about to do it may do yet, but it does not leave it half done. It is asked, too, when
// this process dies, so that who then looks what there is does not look too early.
func (c Command) Run(ctx context.Context) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Timeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &first{limit: outputLimit, full: func() { cancel(ErrOutput) }}
	p, err := c.start(ctx, out)
	if err != nil {
		return nil, err
	}
	err = p.Wait()
	return out.bytes(), err
}

// A Process is a running child.
type Process struct {
	command []string
	cmd     *exec.Cmd
	stderr  *last
	whole   bool
	ctx     context.Context
	done    chan struct{} // closed when it ended
	err     error         // how, once it did
}

// Start starts c. What it prints goes to stdout, which may be nil. The child
// is killed, with all that it started, when the context is over; there is no
// other deadline. Wait must be called.
func (c Command) Start(ctx context.Context, stdout io.Writer) (*Process, error) {
	return c.start(ctx, stdout)
}

func (c Command) start(ctx context.Context, stdout io.Writer) (*Process, error) {
	p := &Process{command: append([]string{c.Name}, c.Args...), stderr: &last{limit: stderrLimit}, whole: c.Whole, ctx: ctx, done: make(chan struct{})}
	program, err := find(c.Name)
	if err != nil {
		return nil, p.failed(err)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, p.failed(err)
	}
	p.cmd = exec.Command(program, c.Args...)
	p.cmd.Args[0] = c.Name
	p.cmd.Dir = c.Dir
	if c.Dir == "" {
		p.cmd.Dir = "/"
	}
	p.cmd.Env = append([]string{"PATH=" + path, "LC_ALL=C", "LANG=C", "TZ=UTC"}, c.Env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = c.Stdin, stdout, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = grace // for grandchildren that keep a pipe open
	if err := p.begin(); err != nil {
		return nil, p.failed(err)
	}
	go p.watch()
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// begin starts the program. One that is to be asked when we die is so when the thread
// dies that has started it (PR_SET_PDEATHSIG(2const)), which therefore stays.
func (p *Process) begin() error {
	if !p.whole {
		return p.cmd.Start()
	}
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			<-p.done
		}
	}()
	return <-started
}

// watch kills the process group when the context is over.
func (p *Process) watch() {
	select {
	case <-p.done:
	case <-p.ctx.Done():
		if p.whole {
			p.signal(syscall.SIGTERM)
		} else {
			p.Kill()
		}
	}
}

// Pid is the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill kills the child and all that it started, unless that left its process
// group. Wait tells how it ended.
func (p *Process) Kill() { p.signal(syscall.SIGKILL) }

func (p *Process) signal(s syscall.Signal) {
	select {
	case <-p.done: // its number may be another's by now
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

// Wait waits until the child ended, or the context is over and it had time to
// die. An error is an *Error.
func (p *Process) Wait() error {
	select {
	case <-p.done:
	case <-p.ctx.Done():
		select {
		case <-p.done:
		case <-time.After(2 * grace):
			err := p.failed(fmt.Errorf("%w; %w as process %d", context.Cause(p.ctx), ErrStuck, p.Pid()))
			err.Ended = p.done
			return err
		}
	}
	switch cause := context.Cause(p.ctx); {
	case p.err == nil:
		return nil
	case cause != nil:
		return p.failed(cause)
	}
	return p.failed(p.err)
}

func (p *Process) failed(err error) *Error {
	e := &Error{Command: p.command, Code: -1, Stderr: p.stderr.text(), Err: err}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		e.Code = exit.ExitCode()
	}
	return e
}

// find looks for a program in the fixed path.
func find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("no such program: %w", fs.ErrNotExist)
}

// first keeps what is written up to a limit, and calls full once when there is
// more.
type first struct {
	limit int
	full  func()

	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *first) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := w.limit - w.buf.Len()
	if len(b) > room {
		w.buf.Write(b[:room])
		w.full()
		return room, ErrOutput
	}
	return w.buf.Write(b)
}

func (w *first) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.buf.Bytes())
}

// last keeps the end of what is written.
type last struct {
	limit int

	mu  sync.Mutex
	buf []byte
}

func (w *last) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	if over := len(w.buf) - w.limit; over > 0 {
		w.buf = append(w.buf[:0], w.buf[over:]...)
	}
	return len(b), nil
}

func (w *last) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(w.buf), "?"))
}
