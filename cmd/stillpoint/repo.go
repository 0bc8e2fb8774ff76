package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

// repoFlags are how a command gets at the repository.
type repoFlags struct {
	path         string
	passwordFile string

	typed string // the password, once it was asked for
}

func (f *repoFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.path, "repo", "r", "", "folder of the repository (default $STILLPOINT_REPO)")
	c.Flags().StringVar(&f.passwordFile, "password-file", "", "file that holds the password (default $STILLPOINT_PASSWORD_FILE)")
}

func (f *repoFlags) folder(e *env) (string, error) {
	if f.path != "" {
		return f.path, nil
	}
	if p := e.getenv("STILLPOINT_REPO"); p != "" {
		return p, nil
	}
	return "", problem.Newf(problem.Usage, "", "no repository named: give --repo FOLDER or set STILLPOINT_REPO")
}

// open opens the repository as this host and user.
func (f *repoFlags) open(ctx context.Context, e *env) (*repository.Repository, error) {
	path, err := f.folder(e)
	if err != nil {
		return nil, err
	}
	if err := repository.Exists(path); err != nil {
		return nil, err // before anybody is asked for a password
	}
	password, err := f.password(e, false)
	if err != nil {
		return nil, err
	}
	return repository.Open(ctx, path, password, repository.Options{Identity: identity()})
}

func identity() repository.Identity {
	id := repository.Identity{Host: "localhost", User: "root"}
	if h, err := os.Hostname(); err == nil && h != "" {
		id.Host = h
	}
	if u, err := user.Current(); err == nil {
		id.User = u.Username
	}
	return id
}

// password looks at the flag, then at the environment, and then asks at the
// terminal; twice where a mistake would be final.
func (f *repoFlags) password(e *env, twice bool) (string, error) {
	file := f.passwordFile
	if file == "" {
		if p := e.getenv("STILLPOINT_PASSWORD"); p != "" {
			return p, nil
		}
		file = e.getenv("STILLPOINT_PASSWORD_FILE")
	}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", problem.New(problem.PasswordMissing, "", err)
		}
		line, _, _ := bytes.Cut(b, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			return "", problem.Newf(problem.PasswordMissing, file, "the first line of the file is empty")
		}
		return string(line), nil
	}
	if e.stdin == nil || !term.IsTerminal(int(e.stdin.Fd())) {
		return "", problem.New(problem.PasswordMissing, "", errors.New("no password: give --password-file, set STILLPOINT_PASSWORD or STILLPOINT_PASSWORD_FILE, or run at a terminal to be asked"))
	}
	if f.typed != "" {
		return f.typed, nil
	}
	p, err := e.ask("Password of the repository: ")
	if err != nil || !twice {
		f.typed = p
		return p, err
	}
	again, err := e.ask("The same password again: ")
	if err == nil && again != p {
		err = problem.Newf(problem.Usage, "", "the two passwords differ")
	}
	return p, err
}

func (e *env) ask(prompt string) (string, error) {
	fmt.Fprint(e.stderr, prompt)
	b, err := term.ReadPassword(int(e.stdin.Fd()))
	fmt.Fprintln(e.stderr)
	if err != nil {
		return "", problem.New(problem.PasswordMissing, "", err)
	}
	if len(b) == 0 {
		return "", problem.Newf(problem.PasswordMissing, "", "the password is empty")
	}
	return string(b), nil
}
