package postgres

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
)

// wantsPassword is a server that asks for it in clear text, and says no
// (protocol-message-formats, AuthenticationCleartextPassword, ErrorResponse).
func wantsPassword(c net.Conn) {
	b := make([]byte, 4096)
	_, _ = c.Read(b)
	_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x03"))
	_, _ = c.Read(b)
	_, _ = c.Write([]byte("E\x00\x00\x00\x13SFATAL\x00C28P01\x00\x00"))
}

// A password goes to nobody who only listens where a server could.
func TestStranger(t *testing.T) {
	t.Setenv("PGPASSWORD", "secret")
	check := func(dir string, o Options, uid int) (told bool) {
		t.Helper()
		heard := servertest.Impostor(t, dir+"/.s.PGSQL.5999", uid, wantsPassword)
		defer os.Remove(dir + "/.s.PGSQL.5999")
		o.Directories = append(o.Directories, dir)
		all, err := New(o).Discover(context.Background(), writer.Scope{})
		must(t, err)
		for _, in := range all {
			if in.About().ID != name+":"+dir+":5999" {
				continue
			}
			if err := in.Check(context.Background()); problem.CodeOf(err) != problem.WriterPassword {
				t.Errorf("%+v, user %d: %v", o, uid, err)
			}
			return strings.Contains(heard(), "secret")
		}
		t.Errorf("%+v, user %d: not found", o, uid)
		return false
	}
	everybodys := func() string {
		dir := t.TempDir()
		must(t, errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.Chmod(filepath.Dir(dir), 0o711)))
		return dir
	}
	with := Options{User: "backup", Password: "secret"}
	if check(everybodys(), with, 65534) {
		t.Error("nobody is told the password")
	}
	if check(everybodys(), Options{}, 65534) {
		t.Error("nobody is told the password of the environment")
	}
	if !check(everybodys(), with, 0) {
		t.Error("root is not told the password")
	}
	if !check(t.TempDir(), with, 65534) {
		t.Error("one that the configuration names is not told the password")
	}
}
