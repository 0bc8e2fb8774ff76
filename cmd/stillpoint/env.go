package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/term"

	"stillpoint/internal/problem"
)

// env is what a command knows of the world it was started in.
type env struct {
	stdin  *os.File
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string

	terminal bool // stderr is one: show progress
	json     bool // --json was given
	page     pageFlag
}

func newEnv() *env {
	return &env{
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		getenv:   os.Getenv,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// print writes v as JSON, for people who pipe it into a program.
func (e *env) print(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// output gives the failure to write to standard output its code.
func output(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && pe.Path == os.Stdout.Name() && problem.CodeOf(err) == problem.Uncatalogued {
		return problem.New(problem.OutputLost, "", err)
	}
	return err
}
