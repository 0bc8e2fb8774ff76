package container

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Published are the addresses of the host at which a port of a process's network
// is published, sorted, as the arguments of docker-proxy say, which Docker starts
// for each: -host-ip, -host-port, -container-ip, -container-port (libnetwork,
// portmapper/proxy.go). Podman, containerd and Docker without that program leave
// no such trace. Of a process that has users of its own none are known: it may
// have given its network whatever address it likes.
func Published(pid int, port uint16) []string {
	theirs := addresses(pid)
	if own, err := Users(pid); err != nil || own {
		return nil
	}
	var all []string
	proxies, _ := filepath.Glob("/proc/[0-9]*/comm") // a pattern of ours
	for _, comm := range proxies {
		dir := filepath.Dir(comm)
		if b, err := os.ReadFile(comm); err != nil || string(b) != proxy+"\n" || !trusted(dir) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
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
		all = append(all, netip.AddrPortFrom(host, uint16(number)).String())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

const proxy = "docker-proxy"

// trusted tells whether a process is root's own proxy, with our users, our
// network, which it publishes in, and our process numbers. Its name and its
// arguments are whatever he says who starts it, also where a program with the
// rights of root is started, as sudo; its file is not.
func trusted(dir string) bool {
	pid, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return false
	}
	for _, kind := range []string{"user", "net", "pid"} {
		if own, err := apartIn(pid, kind); err != nil || own {
			return false
		}
	}
	file, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil || filepath.Base(strings.TrimSuffix(file, " (deleted)")) != proxy { // replaced by a newer one
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			return slices.Equal(strings.Fields(rest), []string{"0", "0", "0", "0"})
		}
	}
	return false
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
