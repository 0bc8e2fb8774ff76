package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/problem"
)

// patience is how long one answer is waited for, whatever a context allows. A
// server that works answers all at once, also while changes wait.
const patience = 5 * time.Second

// A conn is a connection for one goroutine at a time. A question is not
// interrupted when its context is cancelled: nobody would know then whether
// the server still acts on it.
type conn struct {
	redis.Conn
	id string
}

// dial connects and says who we are.
func (in *instance) dial(ctx context.Context) (*conn, error) {
	if ctx.Err() != nil {
		return nil, in.understood("connect", context.Cause(ctx))
	}
	ctx2, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	nc, err := in.connect(ctx2)
	if err != nil {
		return nil, in.understood("connect", err)
	}
	// A server without room for us says so, and closes: that has to be read
	// although nothing can be written any more.
	_, _ = nc.Write([]byte("PING\r\n"))
	c := &conn{redis.NewConn(nc, patience, patience), in.ID()}
	_, err = redis.ReceiveWithTimeout(c.Conn, within(ctx))
	if err != nil {
		err = in.understood("PING", err)
	}
	if err = in.enter(ctx, c, err); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// enter logs in, after the answer to a PING, if that shows that the server
// answers.
func (in *instance) enter(ctx context.Context, c *conn, answer error) error {
	switch problem.CodeOf(answer) {
	case "", problem.WriterRights: // we need not be allowed a PING
	case problem.WriterPassword:
		if in.stranger != nil {
			return problem.New(problem.WriterPassword, in.ID(), in.stranger)
		}
		if in.login.Username == "" && in.login.Password == "" {
			return answer
		}
	default:
		return answer
	}
	var err error
	switch l := in.login; {
	case l.Username != "":
		_, err = c.do(ctx, "AUTH", l.Username, l.Password)
	case l.Password != "":
		_, err = c.do(ctx, "AUTH", l.Password)
	}
	return err
}

func (c *conn) close() {
	if c != nil {
		_ = c.Conn.Close()
	}
}

// within is how long an answer may be waited for.
func within(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return max(min(time.Until(end), patience), time.Millisecond)
	}
	return patience
}

// do asks the server. An error has a code.
func (c *conn) do(ctx context.Context, command string, args ...any) (any, error) {
	if ctx.Err() != nil {
		return nil, c.understood(command, context.Cause(ctx))
	}
	reply, err := redis.DoWithTimeout(c.Conn, within(ctx), command, args...)
	if err != nil {
		return nil, c.understood(command, err)
	}
	return reply, nil
}

// info asks for one section of what the server tells about itself.
func (c *conn) info(ctx context.Context, section string) (map[string]string, error) {
	text, err := redis.String(c.do(ctx, "INFO", section))
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[key] = value
		}
	}
	return all, nil
}

// config asks for a setting.
func (c *conn) config(ctx context.Context, key string) (string, error) {
	all, err := redis.StringMap(c.do(ctx, "CONFIG", "GET", key))
	return all[key], err
}

// allowed is nil when the server refuses a question only for what it asks.
func (c *conn) allowed(ctx context.Context, command string, args ...any) error {
	_, err := c.do(ctx, command, args...)
	var refused redis.Error
	if problem.CodeOf(err) == problem.WriterFailed && errors.As(err, &refused) {
		return nil
	}
	return err
}

func (c *conn) understood(what string, err error) error { return understood(c.id, what, err) }

func (in *instance) understood(what string, err error) error { return understood(in.ID(), what, err) }

// understood gives an error its code.
func understood(id, what string, err error) error {
	var refused redis.Error
	var code problem.Code
	switch {
	case errors.As(err, &refused):
		code = refusal(string(refused))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded), timeout(err):
		code = problem.WriterTimeout
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, fs.ErrNotExist), errors.Is(err, net.ErrClosed):
		code = problem.WriterGone
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		code = problem.WriterResources // EAGAIN: a socket's queue is full
	case errors.Is(err, fs.ErrPermission):
		code = problem.WriterRights
	default:
		code = problem.WriterFailed
	}
	return problem.New(code, id, fmt.Errorf("%s: %w", what, err))
}

func timeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// refusal knows the answers of the server (server.c, acl.c, networking.c).
func refusal(text string) problem.Code {
	for _, r := range []struct {
		prefix string
		code   problem.Code
	}{
		{"NOAUTH", problem.WriterPassword},
		{"WRONGPASS", problem.WriterPassword},
		{"ERR AUTH", problem.WriterPassword}, // a password, and none is set
		{"NOPERM", problem.WriterRights},
		{"ERR unknown command", problem.WriterRights}, // renamed, so that nobody uses it
		{"ERR unknown subcommand", problem.WriterRights},
		{"ERR max number of clients", problem.WriterResources},
		{"OOM", problem.WriterResources},
		{"MISCONF", problem.WriterResources}, // it cannot write its files
		{"LOADING", problem.WriterRetryable},
		{"TRYAGAIN", problem.WriterRetryable},
		{"BUSY", problem.WriterBusy}, // a script runs for long
	} {
		if strings.HasPrefix(text, r.prefix) {
			return r.code
		}
	}
	return problem.WriterFailed
}
