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
			r := do(q)
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

func do(q wire.Request) (r wire.Reply) {
	var err error
	switch q.Op {
	case wire.Run:
		return run(q)
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
func run(q wire.Request) (r wire.Reply) {
	ctx, cancel := context.WithTimeout(context.Background(), q.Limit)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", q.Text)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Dir = "/"
	c.Env = append(os.Environ(), "HOME=/root", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // for what it left running in the background
	err := c.Run()
	r.Out, r.Err = out.Bytes(), errs.Bytes()
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
