package container

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Published is the address of the host at which a port of a process's network
// is published, as the arguments of docker-proxy say, which Docker starts for
// each: -host-ip, -host-port, -container-ip, -container-port (libnetwork,
// portmapper/proxy.go). Podman, containerd and Docker without that program leave
// no such trace. It is empty where none is known.
func Published(pid int, port uint16) string {
	theirs := addresses(pid)
	proxies, _ := filepath.Glob("/proc/[0-9]*/comm") // a pattern of ours
	for _, comm := range proxies {
		if b, err := os.ReadFile(comm); err != nil || string(b) != "docker-proxy\n" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(comm), "cmdline"))
		if err != nil {
			continue // it ended
		}
		a := arguments(strings.Split(string(b), "\x00"))
		if a["proto"] != "tcp" || !theirs[a["container-ip"]] || a["container-port"] != strconv.Itoa(int(port)) {
			continue
		}
		host, err := netip.ParseAddr(a["host-ip"])
		number, err2 := strconv.ParseUint(a["host-port"], 10, 16)
		if err != nil || err2 != nil {
			continue
		}
		if host.IsUnspecified() {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return netip.AddrPortFrom(host, uint16(number)).String()
	}
	return ""
}

func arguments(words []string) map[string]string {
	all := map[string]string{}
	for i := range words[:max(len(words)-1, 0)] {
		if name, ok := strings.CutPrefix(words[i], "-"); ok {
			all[name] = words[i+1]
		}
	}
	return all
}

// addresses are those of version 4 that a process's network has, but for its
// loopback: in its table of routes they are the ones of this host.
func addresses(pid int) map[string]bool {
	all := map[string]bool{}
	b, err := os.ReadFile(procPath(pid, "net/fib_trie"))
	if err != nil {
		return nil
	}
	last := ""
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "|--":
			last = f[1]
		case len(f) == 3 && f[1] == "host" && f[2] == "LOCAL" && !strings.HasPrefix(last, "127."):
			all[last] = true
		}
	}
	return all
}
