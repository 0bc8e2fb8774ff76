package writertest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/tool"
	"stillpoint/internal/writer"
)

// childVariable is set in children, to what they do.
const childVariable = "STILLPOINT_WRITERTEST"

// A task is what a child is told: an instance to bring to rest.
type task struct {
	ID     string
	Scope  writer.Scope
	Window time.Duration
}

const rests = "writertest: rests"

// child brings an instance to rest and waits to be ended.
func child(t *testing.T, h Host) {
	var do task
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &do); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	all, err := h.New(t).Discover(ctx, do.Scope)
	for _, in := range all {
		if in.About().ID != do.ID {
			continue
		}
		s, err := in.Prepare(ctx, writer.Need{Window: do.Window})
		if err == nil {
			err = s.Freeze(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n%s\n", rests)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		os.Exit(3)
	}
	t.Fatalf("%s is not found: %v", do.ID, err)
}

// inChild lets a child bring the application to rest, and returns its process.
func (c *C) inChild(window time.Duration) int {
	c.Helper()
	b, err := json.Marshal(task{c.app.ID(), c.app.Scope(), window})
	c.must(err)
	in, orders, err := os.Pipe()
	c.must(err)
	said, out, err := os.Pipe()
	c.must(err)
	c.Cleanup(func() { orders.Close(); said.Close() })
	top, _, _ := strings.Cut(c.Name(), "/")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	c.Cleanup(cancel)
	p, err := tool.Command{
		Name: os.Args[0], Args: []string{"-test.run=^" + regexp.QuoteMeta(top) + "$", "-test.v"},
		Env: []string{childVariable + "=" + string(b)}, Stdin: in,
	}.Start(ctx, out)
	c.must(err)
	in.Close()
	out.Close()
	c.Cleanup(func() { p.Kill(); _ = p.Wait() })
	lines := bufio.NewScanner(said)
	var all []string
	for lines.Scan() {
		if lines.Text() == rests {
			go func() { _, _ = io.Copy(io.Discard, said) }()
			return p.Pid()
		}
		all = append(all, lines.Text())
	}
	c.Fatalf("the child says %s", strings.Join(all, "\n"))
	return 0
}

func itoa(n int) string { return strconv.Itoa(n) }
