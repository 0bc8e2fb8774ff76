package redis

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/sys/listener"
	"stillpoint/internal/writer"
)

// A fake is a server that says what a test wants, for states that a real one is in
// for a moment only.
type fake struct {
	testing.TB
	path string

	mu      sync.Mutex
	state   map[string]string // what INFO tells
	answers map[string]string // to commands, by their beginning, as they are sent
	asked   []string
}

func newFake(t testing.TB, state map[string]string) *fake {
	t.Helper()
	f := &fake{TB: t, path: t.TempDir() + "/s", answers: map[string]string{}, state: map[string]string{
		"redis_version": "7.0.15", "loading": "0", "aof_enabled": "1", "aof_buffer_length": "0", "aof_last_write_status": "ok",
		"aof_rewrite_in_progress": "0", "aof_rewrite_scheduled": "0", "rdb_bgsave_in_progress": "0", "rdb_changes_since_last_save": "0", "rdb_last_bgsave_status": "ok",
	}}
	maps.Copy(f.state, state)
	l, err := net.Listen("unix", f.path)
	must(t, err)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { defer c.Close(); f.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return f
}

func (f *fake) serve(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		words, err := question(in)
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, f.answer(strings.Join(words, " "))); err != nil {
			return
		}
	}
}

// question reads one, by itself on a line or as an array of texts (RESP2).
func question(in *bufio.Reader) (words []string, err error) {
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "*") {
		return strings.Fields(line), err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	for range n {
		if _, err = in.ReadString('\n'); err != nil { // its length: no text of ours has a line end
			return nil, err
		}
		word, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		words = append(words, strings.TrimSpace(word))
	}
	return words, err
}

func (f *fake) answer(asked string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, asked)
	for begin, answer := range f.answers {
		if strings.HasPrefix(asked, begin) {
			return answer
		}
	}
	switch {
	case strings.HasPrefix(asked, "INFO"):
		var all strings.Builder
		for key, value := range f.state {
			fmt.Fprintf(&all, "%s:%s\r\n", key, value)
		}
		return fmt.Sprintf("$%d\r\n%s\r\n", all.Len(), all.String())
	case strings.HasPrefix(asked, "CONFIG GET"):
		key := strings.Fields(asked)[2]
		value := map[string]string{"save": "3600 1", "dbfilename": "dump.rdb"}[key]
		return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	case strings.Contains(asked, " none"), strings.HasSuffix(asked, " none"):
		return "-ERR value is not an integer\r\n"
	}
	return "+OK\r\n"
}

// heard is how often something was asked.
func (f *fake) heard(begin string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if strings.HasPrefix(a, begin) {
			n++
		}
	}
	return n
}

// instance is the server, with files in a directory.
func (f *fake) instance(dir string) *instance {
	return &instance{
		place: place{Address: listener.Address{Network: "unix", Address: f.path}, name: f.path}, save: time.Minute, length: length,
		about: writer.About{ID: "redis:" + f.path, Writer: name, Paths: []string{dir}},
	}
}

// session is one that is prepared, but has not looked at the server yet.
func (f *fake) session(dir string, keeps storage) *session {
	f.Helper()
	in := f.instance(dir)
	s := &session{instance: in, need: writer.Need{Window: time.Minute}, keeps: keeps, returned: make(chan struct{}), over: make(chan struct{}), pause: &pause{in: in}}
	var err error
	s.ask, err = in.dial(f.Context())
	must(f, err)
	f.Cleanup(s.ask.close)
	s.pause.conn, err = in.dial(f.Context())
	must(f, err)
	f.Cleanup(s.pause.conn.close)
	return s
}

func briefly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// set changes what is answered.
func (f *fake) set(begin, answer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[begin] = answer
}
