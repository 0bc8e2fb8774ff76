package main

import (
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// configured is the program with a configuration, which tries nothing twice, and
// fails where an application cannot be brought to rest.
func (p *program) configured(t *testing.T, writer, settings string) *program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := "writers:\n  retries: 0\n" + settings + "\n"
	if !strings.Contains(settings, writer+":") {
		text += "  " + writer + ":\n    policy: fail\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p.with(t, "STILLPOINT_CONFIG="+path)
}

func (p *program) scripts(t *testing.T) {
	for _, c := range []struct {
		code     problem.Code
		freeze   string
		settings string
		mode     os.FileMode
	}{
		{problem.WriterFailed, "exit 1", "", 0o755},
		{problem.WriterRights, "exit 0", "", 0o777},
		{problem.WriterTimeout, "sleep 60", "    limit: 1s\n", 0o755},
		{problem.WindowClosed, "sleep 60", "  window: 1s\n", 0o755},
		{problem.WriterRetryable, "kill -KILL $PPID; sleep 1", "", 0o755},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "script")
		if err := os.WriteFile(path, []byte("#!/bin/sh\ncase $1 in freeze) "+c.freeze+" ;; esac\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("  script:\n    policy: fail\n    dir: %s\n    paths: [%s]\n", dir, p.vol.Dir)
		if strings.HasPrefix(c.settings, "    ") {
			script += c.settings
		} else {
			script = c.settings + script
		}
		p.configured(t, "script", script).ends(c.code, exitFailed, "backup", p.vol.Dir)
	}
}

func (p *program) sqlite(t *testing.T) {
	q := p.configured(t, "sqlite", "")
	path := filepath.Join(p.vol.Dir, "locked.db")
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE t (n INTEGER); BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	q.ends(problem.WriterBusy, exitFailed, "backup", p.vol.Dir)
	if _, err := db.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	q.during("backup:planned", func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}, problem.WriterGone, exitFailed, "backup", p.vol.Dir)
}

func (p *program) redis(t *testing.T) {
	q := p.configured(t, "redis", "")
	dir := filepath.Join(p.vol.Dir, "redis")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	serve := func(options ...string) (socket string, stop func()) {
		t.Helper()
		socket = filepath.Join(dir, "socket")
		c := exec.Command("redis-server", append([]string{"--port", "0", "--dir", dir, "--save", "60 1", "--unixsocket", socket}, options...)...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Wait() }()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if conn, err := net.Dial("unix", socket); err == nil {
				conn.Close()
				break
			}
			if time.Now().After(end) {
				t.Fatal("redis-server does not answer")
			}
		}
		stop = func() { _ = c.Process.Kill(); <-ended }
		t.Cleanup(stop)
		return socket, stop
	}

	_, stop := serve("--requirepass", "secret")
	q.ends(problem.WriterPassword, exitFailed, "backup", p.vol.Dir)
	stop()

	socket, stop := serve("--maxclients", "1")
	// Who is served is the one client, so that the next one is one too many. It
	// is not at once: the server may not have noticed yet that the last one left.
	var conn net.Conn
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn = pinged(socket); conn != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("redis-server serves nobody")
		}
	}
	defer conn.Close()
	q.ends(problem.WriterResources, exitFailed, "backup", p.vol.Dir)
	stop()
}

// pinged is a connection to a Redis that has answered; nil where it does not serve
// one more.
func pinged(socket string) net.Conn {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	answer := make([]byte, len("+PONG"))
	if _, err = conn.Write([]byte("PING\r\n")); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil || string(answer) != "+PONG" {
		conn.Close()
		return nil
	}
	return conn
}
