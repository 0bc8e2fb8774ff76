package tool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// A Foreground is a program of the user's that runs in our place: with our
// environment, standard input and output, working directory and process group.
// It is looked for in the user's PATH.
type Foreground struct{ cmd *exec.Cmd }

// Find looks for a program and prepares to run it. An error wraps
// fs.ErrNotExist or fs.ErrPermission.
func Find(name string, args ...string) (*Foreground, error) {
	path, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		if errors.Is(err, exec.ErrNotFound) {
			err = fs.ErrNotExist
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := &Foreground{cmd: exec.Command(path, args...)}
	f.cmd.Err = nil // which is ErrDot where PATH has a relative folder: it is the user's
	f.cmd.Args[0] = name
	f.cmd.Stdin, f.cmd.Stdout, f.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Go's PWD, if it is one, names it by the path that the user came by.
	if dir, err := os.Getwd(); err == nil {
		f.cmd.Dir = dir
	}
	return f, nil
}

// Start starts the program. It lives in the namespaces of the calling thread,
// is in its working directory as they show it, and gets SIGTERM when that
// thread ends.
func (f *Foreground) Start() error {
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return f.cmd.Start()
}

// Signal sends a signal to the program.
func (f *Foreground) Signal(s os.Signal) error { return f.cmd.Process.Signal(s) }

// Wait waits for the end of the program and returns its exit code as a shell
// would tell it: 128 and its number for a signal.
func (f *Foreground) Wait() (code int, err error) {
	err = f.cmd.Wait()
	exit := (*exec.ExitError)(nil)
	if err == nil || errors.As(err, &exit) {
		status := f.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
	return -1, err
}
