// Package listener tells where processes of this host listen for connections,
// from /proc. It knows no word of the product. A failure is the kernel's errno
// in an fs.PathError; sockets that come or go while it looks are left out.
package listener

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// An Address is one to connect to, as package net wants it.
type Address struct {
	Network string // "unix" or "tcp"
	Address string // a path, or an address with a port
}

// Of lists where a process listens: sockets with a name first, then ports, both
// in the order of the kernel's tables. An address that stands for all those of
// the host is given as the loopback's.
func Of(pid int) ([]Address, error) {
	mine, err := sockets(pid)
	if err != nil {
		return nil, err
	}
	var all []Address
	for _, t := range []struct {
		name  string
		parse func(fields []string) (Address, string)
	}{{"unix", named}, {"tcp", port}, {"tcp6", port}} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, t.name))
		if os.IsNotExist(err) && t.name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if a, inode := t.parse(strings.Fields(line)); mine[inode] && a.Address != "" {
				all = append(all, a)
			}
		}
	}
	return all, nil
}

// sockets are the inodes of the sockets that a process has open.
func sockets(pid int) (map[string]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	mine := map[string]bool{}
	for _, fd := range list {
		to, err := os.Readlink(dir + "/" + fd.Name())
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && err == nil {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return mine, nil
}

// named reads a line of /proc/net/unix: Num RefCount Protocol Flags Type St
// Inode Path (net/unix/af_unix.c). Names without a path begin with an @.
func named(f []string) (a Address, inode string) {
	const accepts = "00010000" // __SO_ACCEPTCON
	if len(f) != 8 || f[3] != accepts || !strings.HasPrefix(f[7], "/") {
		return a, ""
	}
	return Address{"unix", f[7]}, f[6]
}

// port reads a line of /proc/net/tcp or tcp6: sl local_address rem_address st …
// with the inode as the tenth field.
func port(f []string) (a Address, inode string) {
	const listens = "0A" // TCP_LISTEN
	if len(f) < 10 || f[3] != listens {
		return a, ""
	}
	host, number, _ := strings.Cut(f[1], ":")
	ip, ok := words(host)
	p, err := strconv.ParseUint(number, 16, 16)
	if !ok || err != nil {
		return a, ""
	}
	if ip.IsUnspecified() {
		ip = loopback(ip)
	}
	return Address{"tcp", netip.AddrPortFrom(ip, uint16(p)).String()}, f[9]
}

// words reads an address as the kernel prints it: words of 32 bits, each in the
// order of the machine's bytes.
func words(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	return ip.Unmap(), ok
}

func loopback(unspecified netip.Addr) netip.Addr {
	if unspecified.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
