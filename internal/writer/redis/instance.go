package redis

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// An instance is one server.
type instance struct {
	place
	login  Login
	save   time.Duration
	length time.Duration // of a pause
	about  writer.About

	stranger error // why it is not told the login of all servers; nil where it is, or there is none

	sentinel bool // it watches other servers, and has no data
}

// About says what it is.
func (in *instance) About() writer.About { return in.about }

// ask completes the description by what the server tells. What it does not
// tell stays unknown: Check says why.
func (in *instance) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	c, err := in.dial(ctx)
	if err != nil {
		return
	}
	defer c.close()
	if info, err := c.info(ctx, "server"); err == nil {
		in.about.Version = info["redis_version"]
		// Valkey, since 8, has another word for it.
		in.sentinel = info["redis_mode"] == "sentinel" || info["server_mode"] == "sentinel"
		if v := info["valkey_version"]; v != "" {
			in.about.Version = "Valkey " + v
		}
	}
	if len(in.about.Paths) > 0 || in.unseen != nil {
		return
	}
	if dir, err := c.config(ctx, "dir"); err == nil {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil && filepath.IsAbs(dir) {
			in.about.Paths = []string{resolved}
		}
	}
}

// Check tries the password, and whether all commands are allowed.
func (in *instance) Check(ctx context.Context) error {
	c, err := in.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = in.examine(ctx, c)
	if err == nil && in.unseen != nil {
		err = problem.New(problem.WriterRights, in.ID(), fmt.Errorf("its files cannot be seen from the host: %w", in.unseen))
	}
	return err
}

// Prepare connects, and waits until no file is being written anew.
func (in *instance) Prepare(ctx context.Context, n writer.Need) (writer.Session, error) {
	s := &session{instance: in, need: n, returned: make(chan struct{}), over: make(chan struct{})}
	var err error
	if s.ask, err = in.dial(ctx); err != nil {
		return nil, err
	}
	s.pause = &pause{in: in}
	if s.pause.conn, err = in.dial(ctx); err == nil {
		s.keeps, err = in.examine(ctx, s.ask)
	}
	if err == nil {
		err = s.idle(ctx)
	}
	if err != nil {
		s.ask.close()
		s.pause.conn.close()
		return nil, err
	}
	return s, nil
}

// A storage is what a server keeps on disk.
type storage int

const (
	nothing storage = iota
	savedNowAndThen
	appended
)

// examine looks at the version and the rights, and at what the server keeps.
func (in *instance) examine(ctx context.Context, c *conn) (storage, error) {
	info, err := c.info(ctx, "server")
	if err != nil {
		return nothing, err
	}
	if v := info["redis_version"]; !since(v, 6, 2) {
		return nothing, problem.Newf(problem.WriterFailed, in.ID(), "version %s cannot hold changes back and answer us meanwhile; 6.2 can", v)
	}
	info, err = c.info(ctx, "persistence")
	if err != nil {
		return nothing, err
	}
	if info["loading"] != "0" {
		return nothing, problem.Newf(problem.WriterRetryable, in.ID(), "it is still loading its data")
	}
	// The rights come before the meaning of the arguments (processCommand), so
	// that an argument without a meaning asks for the right alone.
	if err := c.allowed(ctx, "CLIENT", "PAUSE", "none", "WRITE"); err != nil {
		return nothing, err
	}
	if info["aof_enabled"] == "1" {
		return appended, nil
	}
	saves, err := c.config(ctx, "save")
	switch problem.CodeOf(err) {
	case "":
		if saves == "" {
			return nothing, nil
		}
	case problem.WriterRights: // then it is better to save once too often
	default:
		return nothing, err
	}
	return savedNowAndThen, c.allowed(ctx, "BGSAVE", "none")
}

// ID is the instance's.
func (in *instance) ID() string { return in.about.ID }

// since tells whether a version is the given one, or a later one.
func since(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err == nil && err2 == nil && (a > major || a == major && b >= minor)
}
