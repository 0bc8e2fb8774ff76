package snapshottest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/tool"
)

// A stage is how far a child process has come with a set of its own.
type stage int

const (
	started stage = iota
	prepared
	held
	committed
	resumed
	shown
	partly // released
	released
)

var stages = []stage{started, prepared, held, committed, resumed, shown, partly, released}

func (s stage) String() string {
	return [...]string{"started", "prepared", "held", "committed", "resumed", "shown", "partly released", "released"}[s]
}

// A task is what a child is told to do.
type task struct {
	ID      string
	Volumes []Volume
}

const (
	taskVariable = "STILLPOINT_SNAPSHOTTEST"
	mark         = "snapshottest stage "
)

func inChild() bool { return os.Getenv(taskVariable) != "" }

// child takes a set and releases it. At each stage it says so, and waits to be
// told to go on.
func child(t *testing.T, h Host) {
	var do task
	if err := json.Unmarshal([]byte(os.Getenv(taskVariable)), &do); err != nil {
		t.Fatal(err)
	}
	orders := bufio.NewReader(os.Stdin)
	reach := func(s stage) {
		fmt.Printf("\n%s%d\n", mark, s)
		switch order, err := orders.ReadString('\n'); {
		case err != nil:
			os.Exit(3) // the parent is gone
		case order == "exit\n":
			os.Exit(0)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.limit())
	defer cancel()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := h.New(t)
	reach(started)
	pending, err := p.Prepare(ctx, do.ID, all(do.Volumes))
	must(err)
	reach(prepared)
	must(pending.Hold(ctx))
	reach(held)
	snaps, err := pending.Commit(ctx)
	must(err)
	reach(committed)
	must(pending.Resume(ctx))
	reach(resumed)
	for _, s := range snaps {
		_, err := os.ReadDir(s.Root())
		must(err)
	}
	reach(shown)
	for i, s := range snaps {
		must(s.Release(ctx))
		if i == 0 {
			reach(partly)
		}
	}
	reach(released)
}

// A process is a child at work.
type process struct {
	*tool.Process
	id     string
	at     stage
	orders io.WriteCloser
	stages chan stage
	ended  chan struct{}
	output *safeBuffer
}

// safeBuffer is written by one goroutine and read by another.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startProcess starts a child that takes a set of the volumes, with a fault.
func (c *C) startProcess(vs []Volume, fault string) *process {
	c.Helper()
	p := &process{id: newID(), at: -1, stages: make(chan stage, len(stages)), ended: make(chan struct{}), output: &safeBuffer{}}
	do, err := json.Marshal(task{p.id, vs})
	c.must(err)
	test, _, _ := strings.Cut(c.Name(), "/")
	program, err := os.Executable()
	c.must(err)
	in, orders, err := os.Pipe()
	c.must(err)
	defer in.Close()
	out, lines, err := os.Pipe()
	c.must(err)
	defer lines.Close()
	p.orders = orders
	cmd := tool.Command{
		Name: program, Stdin: in,
		Args: []string{"-test.run=^" + regexp.QuoteMeta(test) + "$", fmt.Sprint("-test.timeout=", c.host.limit()+time.Minute)},
		Env: append([]string{taskVariable + "=" + string(do), "STILLPOINT_FAULT=" + fault, "TMPDIR=" + os.TempDir(), "HOME=/"},
			c.host.Env...),
	}
	p.Process, err = cmd.Start(context.WithoutCancel(c.ctx), lines)
	c.must(err)
	go p.listen(out)
	c.Cleanup(func() {
		p.Kill()
		_ = p.Wait()
		orders.Close()
	})
	return p
}

// listen reads what the child says.
func (p *process) listen(out *os.File) {
	defer close(p.ended)
	defer out.Close()
	lines := bufio.NewScanner(io.TeeReader(out, p.output))
	for lines.Scan() {
		if num, ok := strings.CutPrefix(lines.Text(), mark); ok {
			var s stage
			if _, err := fmt.Sscan(num, &s); err == nil {
				p.stages <- s
			}
		}
	}
}

// goOn lets the child leave its stage.
func (p *process) goOn() { _, _ = io.WriteString(p.orders, "go on\n") }

// runTo lets the child go on until it waits at a stage.
func (p *process) runTo(c *C, want stage) {
	c.Helper()
	for {
		if p.at == want {
			return
		}
		if p.at >= 0 {
			p.goOn()
		}
		select {
		case p.at = <-p.stages:
		case <-p.ended:
			c.Fatalf("the child ended before it was %s:\n%s", want, p.output)
		case <-time.After(c.host.limit() / 2):
			c.Fatalf("the child hangs before it is %s:\n%s", want, p.output)
		}
	}
}

// runToEnd lets the child go on to its end, and tells how that was.
func (p *process) runToEnd() error {
	for range stages {
		p.goOn()
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("%w:\n%s", err, p.output)
	}
	return nil
}

// kill ends the child by SIGKILL.
func (p *process) kill(c *C) {
	c.Helper()
	p.Kill()
	if err := p.Wait(); err == nil {
		c.Logf("the child had ended before it was killed")
	}
}

// exit makes the child end without a word.
func (p *process) exit(c *C) {
	c.Helper()
	_, _ = io.WriteString(p.orders, "exit\n")
	c.must(p.Wait())
}
