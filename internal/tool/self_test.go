package tool

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A self is what a helper says about itself.
type self struct {
	Args, Env []string
	Dir       string
	Session   bool
	Input     int // bytes on its standard input
}

func TestMain(m *testing.M) {
	if to := os.Getenv(wholeVariable); to != "" {
		runWhole(to)
	}
	if os.Args[0] == "tool-crash" {
		panic("for a reason")
	}
	if os.Args[0] == "tool-self" {
		var s self
		s.Args, s.Env = os.Args, os.Environ()
		s.Dir, _ = os.Getwd()
		group, _ := syscall.Getpgid(0)
		s.Session = group == os.Getpid()
		s.Input, _ = os.Stdin.Read(make([]byte, 10))
		_ = json.NewEncoder(os.NewFile(3, "answer")).Encode(s)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// A helper is this program, knows its name, and has nothing of ours but what
// it was given.
func TestSelf(t *testing.T) {
	t.Setenv("SECRET", "x")
	for _, env := range [][]string{nil, {"A=b"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := Self("tool-self", env, w)
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		var s self
		if err := json.NewDecoder(r).Decode(&s); err != nil {
			t.Error(err)
		}
		r.Close()
		if len(s.Args) != 1 || s.Args[0] != "tool-self" || len(s.Env) != len(env) || s.Dir != "/" || !s.Session || s.Input > 0 {
			t.Errorf("with environment %q: %+v", env, s)
		}
		if err, ok := p.Wait().(*Error); !ok || err.Code != 3 {
			t.Errorf("it ended with %v", err)
		}
	}
}

// What a helper that crashes says is part of its error; what it has to say can be much.
func TestSelfCrashes(t *testing.T) {
	p, err := Self("tool-crash", nil)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := p.Wait().(*Error)
	if !ok || e.Code != 2 || !strings.HasPrefix(e.Stderr, "panic: for a reason") || len(e.Stderr) > crashLimit {
		t.Errorf("it ended with %#v", e)
	}
}
