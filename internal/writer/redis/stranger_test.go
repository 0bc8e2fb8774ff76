package redis

import (
	"net"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/listener"
	"stillpoint/internal/writer/servertest"
)

// Who is no server of root's or of redis hears no password, and is named with why.
func TestStranger(t *testing.T) {
	pid := impostor(t, "tcp", "127.0.0.1:0", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
	path := t.TempDir() + "/s"
	heard := servertest.Impostor(t, path, 65534, func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			_, _ = c.Write([]byte("-NOAUTH Authentication required.\r\n"))
		}
	})
	w := New(Options{Logins: []Login{{Username: "backup", Password: "secret"}}})
	in := w.instance(place{Address: listener.Address{Network: "unix", Address: path}, process: pid, name: path})
	s := &server{Redis: &servertest.Redis{}}
	s.TB = t
	err := in.Check(s.within(20 * time.Second))
	if !problem.Is(err, problem.WriterPassword) || !strings.Contains(err.Error(), "runs as the user nobody") || strings.Contains(heard(), "secret") {
		t.Errorf("%v; it heard %q", err, heard())
	}
}
