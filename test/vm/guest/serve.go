package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"stillpoint/test/vm/wire"
)

// serve does what comes through the serial port, all at once.
func serve(context.Context) error {
	port, err := os.OpenFile("/dev/virtio-ports/"+wire.Port, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	s := &server{to: json.NewEncoder(port)}
	if err := s.say(wire.Reply{Out: bytes.TrimSpace(release)}); err != nil {
		return err
	}
	for from := json.NewDecoder(port); ; {
		var q wire.Request
		if err := from.Decode(&q); err != nil {
			return err
		}
		go func() {
			r := s.do(q)
			r.ID = q.ID
			if err := s.say(r); err != nil {
				fmt.Fprintln(os.Stderr, "guest:", err)
			}
		}()
	}
}

type server struct {
	mu sync.Mutex
	to *json.Encoder
}

func (s *server) say(r wire.Reply) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Encode(r)
}

// A printer passes on what a script prints.
type printer func([]byte) error

func (f printer) Write(p []byte) (int, error) {
	if err := f(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *server) do(q wire.Request) (r wire.Reply) {
	var err error
	switch q.Op {
	case wire.Run:
		return s.run(q)
	case wire.Read:
		r.Out, err = os.ReadFile(q.Text)
	case wire.Write:
		err = errors.Join(os.MkdirAll(filepath.Dir(q.Text), 0o755), os.WriteFile(q.Text, q.Data, os.FileMode(q.Mode)))
	default:
		err = fmt.Errorf("%q is nothing that can be asked for", q.Op)
	}
	if err != nil {
		r.Failure = err.Error()
	}
	return r
}

// run runs a script in a process group of its own, which ends with its time.
func (s *server) run(q wire.Request) (r wire.Reply) {
	ctx, cancel := context.WithTimeout(context.Background(), q.Limit)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", q.Text)
	c.Stdout = printer(func(p []byte) error { return s.say(wire.Reply{ID: q.ID, Out: p, More: true}) })
	c.Stderr = printer(func(p []byte) error { return s.say(wire.Reply{ID: q.ID, Err: p, More: true}) })
	c.Dir = "/"
	c.Env = append(os.Environ(), "HOME=/root", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // for what it left running in the background
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Failure = "it did not end in time: " + q.Limit.String()
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Code = 128 + int(ws.Signal())
		}
	default:
		r.Failure = strings.TrimSpace(err.Error())
	}
	return r
}
