package view

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// job makes a process of the test do what it says and nothing else: it is
// "WHAT PATH".
const job = "STILLPOINT_VIEW_JOB"

func TestMain(m *testing.M) {
	what, path, ok := strings.Cut(os.Getenv(job), " ")
	if !ok {
		os.Exit(m.Run())
	}
	if err := others[what](path); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// others is what another process can be made to do with a path.
var others = map[string]func(path string) error{
	"content": readContent,
	"walk":    func(path string) error { return walk(path, false) },
	"tree":    func(path string) error { return walk(path, true) },
	"again":   func(path string) error { return errors.Join(walk(path, true), walk(path, true)) },
	"serve":   serve,
	"hold":    hold,
	"signals": signals,
}

// other is a command that makes another process do something.
func other(what, path string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), job+"="+what+" "+path)
	return c
}
