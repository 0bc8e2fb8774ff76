// Package aide runs what must go on, or end in order, when we do not: a child
// of ours that outlives us. It is this program once more, under another name;
// it answers calls, and notices when we are gone. It has what it needs before
// anything rests, and nobody starts it later. The package knows how such a
// process is started, asked and ended; what it does is a writer's to say.
package aide

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// ErrGone says that there is no aide any more, or that it was closed.
var ErrGone = errors.New("the helper process is gone")

// An Aide is our end. Its methods may be called from several goroutines.
type Aide struct {
	client  *rpc.Client
	process *tool.Process // to be waited for
	gone    chan struct{}
}

// Start starts an aide, which Main knows by its program's name, and returns
// when it answers.
func Start(ctx context.Context, program string) (*Aide, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, failed("start", os.NewSyscallError("socketpair", err))
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), program), os.NewFile(uintptr(pair[1]), program)
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, failed("start", err)
	}
	p, err := tool.Self(program, nil, theirs)
	if err != nil {
		conn.Close()
		return nil, failed("start", err)
	}
	a := &Aide{client: rpc.NewClient(conn), process: p, gone: make(chan struct{})}
	go func() {
		_ = p.Wait()
		close(a.gone)
	}()
	if err := a.Call(ctx, "Ready", true, nil); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// Call asks the aide, and waits no longer for the answer than the context says.
// An error of the aide's has the code that it had there.
func (a *Aide) Call(ctx context.Context, method string, args, answer any) error {
	if ctx.Err() != nil {
		return late(ctx)
	}
	if answer == nil {
		answer = new(bool)
	}
	call := a.client.Go(service+"."+method, args, answer, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return late(ctx)
	}
	var theirs rpc.ServerError
	switch {
	case call.Error == nil:
		return nil
	case errors.As(call.Error, &theirs):
		return read(string(theirs))
	}
	return problem.New(problem.WriterRetryable, "", fmt.Errorf("%w: %w", ErrGone, call.Error))
}

func late(ctx context.Context) error {
	return problem.New(problem.WriterTimeout, "", context.Cause(ctx))
}

func failed(what string, err error) error {
	code := problem.WriterFailed
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, e) {
			code = problem.WriterResources
		}
	}
	return problem.New(code, "", fmt.Errorf("%s a helper process: %w", what, err))
}

// Close tells the aide that it is not needed any more. It ends in its own time,
// which nobody waits for.
func (a *Aide) Close() { _ = a.client.Close() }

// Gone is closed when the aide has ended.
func (a *Aide) Gone() <-chan struct{} { return a.gone }

// service is the name of all services: there is one in an aide.
const service = "Aide"

// A Server is what an aide does: its methods, as net/rpc wants them, are the
// calls; the types of what they take and give are exported. Their errors are made
// by Failed.
type Server interface {
	// Ready is called first.
	Ready(_ bool, _ *bool) error

	// End is called when nobody will ask any more, and may take its time. Calls
	// may be under way; nobody waits for their answers.
	End()
}

// Main turns this process into an aide, if it is to be one of this name, and
// then never returns. It stands at the beginning of main, and of each TestMain
// in whose package such an aide is started.
func Main(program string, s Server) {
	if len(os.Args) != 1 || os.Args[0] != program {
		return
	}
	// Nobody else ends it, so that what is at rest goes on in order. They are not
	// ignored: that, and to be spared when memory is short, what it starts would
	// inherit, and keep.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGALRM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	f := os.NewFile(3, program)
	conn, err := net.FileConn(f)
	f.Close()
	server := rpc.NewServer()
	if err == nil {
		err = server.RegisterName(service, s)
	}
	if err != nil {
		os.Exit(1)
	}
	watched := &watchedConn{Conn: conn, closed: make(chan struct{})}
	go server.ServeConn(watched)
	<-watched.closed
	s.End()
	os.Exit(0) // this is no library any more, but the main function of an aide
}

// A watchedConn says when the other end is gone, also while calls are under way.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.closed) })
	}
	return n, err
}
