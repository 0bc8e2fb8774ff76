package job

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain lets the test binary play a second process of Stillpoint: with
// JOB_TEST_CHILD set, it does what that says in the folder JOB_TEST_DIR.
func TestMain(m *testing.M) {
	time.Local = time.UTC // for the golden files
	dir := os.Getenv("JOB_TEST_DIR")
	switch os.Getenv("JOB_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "write":
		childWrites(dir)
	case "close-dead":
		dead, err := CloseDead(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, d := range dead {
			fmt.Println(d.ID)
		}
	}
}

// childWrites makes a log with an open intent, says its id and that it is about
// to write, and writes events of megabytes until it is killed.
func childWrites(dir string) {
	l, err := Create(dir, Start{Kind: Backup, Args: []string{"stillpoint", "backup", "/srv"}, Version: "test"})
	if err == nil {
		err = l.Intent(Event{Step: StepCapture, Intent: "snapshot a", Text: "about to take a"})
	}
	if err == nil {
		err = l.Intent(Event{Step: StepCapture, Intent: "snapshot b", Text: "about to take b"})
	}
	if err == nil {
		err = l.Add(Event{Step: StepRelease, Done: "snapshot a", Text: "a is gone"})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.ID())
	// One write of 24 MiB takes long enough to be hit in the middle.
	l.Hold()
	big := strings.Repeat("x", 1<<20)
	for i := range 24 {
		if err := l.Add(Event{Step: StepStore, Text: fmt.Sprint(i), Data: map[string]any{"big": big}}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Println("writing")
	if err := l.Release(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// child starts the second process. It is killed when the test ends, at the
// latest after a minute.
func child(t *testing.T, what, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, os.Args[0])
	c.Env = append(os.Environ(), "JOB_TEST_CHILD="+what, "JOB_TEST_DIR="+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c, bufio.NewReader(out)
}

// writer starts a child that writes right now, and returns the id of its job.
func writer(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	c, out := child(t, "write", dir)
	id, err := out.ReadString('\n')
	must(t, err)
	_, err = out.ReadString('\n') // "writing"
	must(t, err)
	return c, strings.TrimSpace(id)
}

func kill(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
}

// A ticker is a clock that goes on by a fixed step with each look.
type ticker struct {
	at   time.Time
	step time.Duration
}

func (c *ticker) now() time.Time {
	t := c.at
	c.at = c.at.Add(c.step)
	return t
}

func night() *ticker {
	return &ticker{time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC), 250 * time.Millisecond}
}

func create(t *testing.T, dir string, now func() time.Time) *Log {
	t.Helper()
	l, err := Create(dir, Start{Kind: Backup, Args: []string{"stillpoint", "backup", "/srv"}, Version: "0.1.0", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.file.Close() })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, dir, id string) Job {
	t.Helper()
	j, err := Load(dir, id)
	must(t, err)
	return j
}

// texts are the texts of all events, without those about the log itself.
func texts(events []Event) []string {
	var all []string
	for _, e := range events {
		if e.Step != StepLog {
			all = append(all, e.Text)
		}
	}
	return all
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s differs (rewrite it with -update); got:\n%s", file, got)
	}
}
