package holder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/peer"
	"stillpoint/internal/sys/process"
)

// adoptTime is how long the holder of an earlier agent may take for an answer;
// busyTime how long it may answer that it is busy: first it has to notice that
// its agent is dead, and to answer in its place.
const (
	adoptTime = 3 * time.Second
	busyTime  = 30 * time.Second
)

// An Estate is what an earlier agent has left.
type Estate struct {
	Filters []Filter // those of the heir
	socket  *net.UnixConn
	handle  *os.File
}

// Adopt takes the filters over from the holder at a path, which is to be called
// by the one agent there can be. Until Taken is called the holder has them, too,
// and answers whoever waits. The estate is empty where there is no holder. With
// an error there is none any more: one that does not answer, or in other words,
// is killed, which lets everybody go on.
func Adopt(ctx context.Context, path string) (_ *Estate, err error) {
	ctx, cancel := context.WithTimeout(ctx, busyTime)
	defer cancel()
	e := &Estate{}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return e, nil
	case err != nil:
		return nil, fmt.Errorf("the holder of an earlier agent: %w", err)
	}
	e.socket = c.(*net.UnixConn)
	defer func() {
		if err != nil {
			err = fmt.Errorf("the holder of an earlier agent: %w", errors.Join(err, e.discard()))
		}
	}()
	if _, uid, err := peer.Of(e.socket); err != nil || uid != 0 && uid != os.Geteuid() {
		return nil, fmt.Errorf("it belongs to user %d: %w", uid, errors.Join(err, fs.ErrPermission))
	}
	if e.handle, err = peer.Handle(e.socket); err != nil {
		return nil, err
	}
	over := context.AfterFunc(ctx, func() { _ = e.socket.SetDeadline(time.Now()) })
	defer over()
	if err := e.hello(ctx); err != nil {
		return nil, err
	}
	return e, e.take()
}

// hello asks until the holder knows that its agent is dead.
func (e *Estate) hello(ctx context.Context) error {
	for {
		if err := e.write(message{op: opHello, name: version}); err != nil {
			return err
		}
		m, files, err := read(e.socket)
		closeAll(files)
		switch {
		case err != nil:
			return err
		case m.op != opHello || m.name != version:
			return fmt.Errorf("it speaks %q, not %q", m.name, version)
		case m.a == 0:
			return nil
		case syscall.Errno(m.a) != syscall.EBUSY:
			return syscall.Errno(m.a)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (e *Estate) take() error {
	if err := e.write(message{op: opTake}); err != nil {
		return err
	}
	for {
		m, files, err := read(e.socket)
		switch {
		case err != nil:
			return err
		case m.op == opAll:
			return nil
		case m.op != opFilter || len(files) != 2:
			closeAll(files)
			return errors.New("it does not answer as it should")
		}
		group, err := fanotify.AdoptDescriptor(files[0])
		if err != nil {
			_ = syscall.Close(files[1])
			return err
		}
		e.Filters = append(e.Filters, Filter{m.name, sinceOf(m.a), group, os.NewFile(uintptr(files[1]), m.name)})
	}
}

func (e *Estate) write(m message) error {
	if err := e.socket.SetDeadline(time.Now().Add(adoptTime)); err != nil {
		return err
	}
	_, _, err := e.socket.WriteMsgUnix(m.bytes(), nil, nil)
	return err
}

// Taken says that the filters are in good hands. It returns when the holder has
// ended.
func (e *Estate) Taken() error {
	if e.socket == nil {
		return nil
	}
	_ = e.write(message{op: opTaken}) // or it is ended without
	return e.end()
}

// discard lets go of everything, and ends the holder.
func (e *Estate) discard() error {
	for _, f := range e.Filters {
		_ = f.Close()
	}
	e.Filters = nil
	return e.end()
}

// end ends the holder in any case.
func (e *Estate) end() error {
	e.socket.Close()
	if e.handle == nil {
		return nil
	}
	defer e.handle.Close()
	if !process.End(e.handle, time.Second) {
		return errors.New("it does not end")
	}
	return nil
}
