package listener

import (
	"net"
	"os"
	"slices"
	"testing"
)

// What this process listens on is found, what it is only connected to is not.
func TestOf(t *testing.T) {
	path := t.TempDir() + "/socket"
	want := []Address{{"unix", path}}
	if l, err := net.Listen("unix", path); err != nil {
		t.Fatal(err)
	} else {
		defer l.Close()
	}
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		network := "tcp6"
		if address[0] != '[' {
			network = "tcp4"
		}
		l, err := net.Listen(network, address)
		if err != nil {
			if network == "tcp6" {
				t.Logf("no IPv6: %v", err)
				continue
			}
			t.Fatal(err)
		}
		defer l.Close()
		at := l.Addr().(*net.TCPAddr).AddrPort()
		ip := at.Addr().Unmap()
		if ip.IsUnspecified() {
			ip = loopback(ip)
		}
		want = append(want, Address{"tcp", net.JoinHostPort(ip.String(), portOf(l))})
		c, err := net.Dial("tcp", want[len(want)-1].Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	got, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, byText)
	slices.SortFunc(want, byText)
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if _, err := Of(1 << 30); !os.IsNotExist(err) {
		t.Errorf("a process that is not: %v", err)
	}
}

func portOf(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

func byText(a, b Address) int {
	if a.Network+a.Address < b.Network+b.Address {
		return -1
	}
	return 1
}
