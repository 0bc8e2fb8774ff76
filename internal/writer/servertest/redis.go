package servertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

// A Redis is a server of the user redis.
type Redis struct {
	server
	Args []string
}

// NewRedis is a server that is to have its data in a directory that is there,
// with arguments or a configuration file before ours.
func NewRedis(t testing.TB, data string, args ...string) *Redis {
	t.Helper()
	s := &Redis{server: newServer(t, "redis-", "redis"), Args: args}
	var err error
	s.Data, err = filepath.EvalSymlinks(data)
	must(t, err)
	return s
}

// Socket is where it listens.
func (s *Redis) Socket() string { return s.Dir + "/socket" }

// Serve gives the data to the server's user, starts the server, and waits until
// it answers.
func (s *Redis) Serve() {
	s.Helper()
	program, err := exec.LookPath("redis-server")
	must(s, err)
	must(s, filepath.WalkDir(s.Data, func(p string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Chown(p, int(s.as.Uid), int(s.as.Gid))
		}
		return err
	}))
	s.Reach(s.Data)
	s.start("KILL", program, append(append([]string{}, s.Args...), "--dir", s.Data, "--unixsocket", s.Socket(), "--port", "0", "--logfile", s.log())...)
	s.wait(func() error {
		rc, err := redis.Dial("unix", s.Socket())
		if err == nil {
			rc.Close()
		}
		return err
	})
}

// Do is a client's question.
func (s *Redis) Do(question string, args ...any) any {
	s.Helper()
	rc, err := redis.Dial("unix", s.Socket(), redis.DialReadTimeout(20*time.Second))
	must(s, err)
	defer rc.Close()
	reply, err := rc.Do(question, args...)
	must(s, err)
	return reply
}
