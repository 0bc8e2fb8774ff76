package mariadb

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
)

// packet is one of the protocol: its length in three bytes, and its number.
func packet(number byte, text string) []byte {
	return append([]byte{byte(len(text)), byte(len(text) >> 8), 0, number}, text...)
}

// wantsPassword is a server that asks for the password itself, which clients tell at a
// socket (caching_sha2_password, perform_full_authentication), and says no.
func wantsPassword(c net.Conn) {
	const flags, more = "\x00\x82", "\x08\x00" // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
	b := make([]byte, 4096)
	_, _ = c.Write(packet(0, "\x0a8.0.99\x00\x01\x00\x00\x0012345678\x00"+flags+"\x21\x02\x00"+more+"\x15"+strings.Repeat("\x00", 10)+"123456789012\x00caching_sha2_password\x00"))
	_, _ = c.Read(b)
	_, _ = c.Write(packet(2, "\x01\x04"))
	_, _ = c.Read(b)
	_, _ = c.Write(packet(4, "\xff\x15\x04#28000no")) // ER_ACCESS_DENIED_ERROR
}

// A password goes to nobody who only listens where a server could.
func TestStranger(t *testing.T) {
	with := Options{User: "backup", Password: "secret"}
	for _, tt := range []struct {
		what string
		mode os.FileMode // of the folder
		uid  int
		told bool
	}{
		{"nobody, in a folder of everybody's", 0o777 | os.ModeSticky, 65534, false},
		{"root, in a folder of everybody's", 0o777 | os.ModeSticky, 0, true},
		{"nobody, as the configuration says", 0o755, 65534, true},
	} {
		dir := t.TempDir()
		must(t, os.Chmod(dir, tt.mode))
		heard := servertest.Impostor(t, dir+"/s", tt.uid, wantsPassword)
		o := with
		o.Sockets = []string{dir + "/*"}
		all, err := New(o).Discover(context.Background(), writer.Scope{})
		must(t, err)
		found := false
		for _, in := range all {
			if in.About().ID == name+":"+dir+"/s" {
				found = true
				if err := in.Check(context.Background()); problem.CodeOf(err) != problem.WriterPassword {
					t.Errorf("%s: %v", tt.what, err)
				}
			}
		}
		if told := strings.Contains(heard(), "secret"); !found || told != tt.told {
			t.Errorf("%s: found %v, told %v: %q", tt.what, found, told, heard())
		}
	}
}
