package postgres

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/sys/process"
)

// A server is a place where one listens.
type server struct {
	host string // the directory of its socket, resolved; else a name or address
	port uint16
	uid  int    // whom the server runs as
	data string // its data directory, resolved; "" when not known
	dsn  string // how to connect, for one that was not found
}

func (s server) id() string { return fmt.Sprintf("%s:%s:%d", name, s.host, s.port) }

func (s server) socket() string {
	return filepath.Join(s.host, socketPrefix+strconv.Itoa(int(s.port)))
}

// socketPrefix begins the names of sockets; the port follows
// (runtime-config-connection, unix_socket_directories).
const socketPrefix = ".s.PGSQL."

// servers lists the sockets of running servers and those in the usual places.
// Of a server with several the first is taken.
func (w *postgres) servers() ([]server, error) {
	running, err := postmasters()
	dirs := append([]string{"/run/postgresql", "/tmp"}, w.Directories...)
	for _, p := range running {
		dirs = append(dirs, p.directory)
	}
	var all []server
	taken := map[string]bool{} // data directories
	for _, dir := range distinct(dirs) {
		for _, s := range socketsIn(dir) {
			if i := slices.IndexFunc(running, func(p postmaster) bool { return p.owns(s) }); i >= 0 {
				s.data = running[i].data
			}
			if s.data != "" && taken[s.data] {
				continue
			}
			taken[s.data] = true
			all = append(all, s)
		}
	}
	return all, err
}

// distinct resolves directories, and leaves out what is not there.
func distinct(dirs []string) []string {
	var all []string
	for _, d := range dirs {
		if d, err := filepath.EvalSymlinks(d); err == nil && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

func socketsIn(dir string) []server {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // not ours to look into, and so not ours to connect to
	}
	var all []server
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), socketPrefix)
		port, err := strconv.ParseUint(digits, 10, 16)
		if !ok || err != nil || e.Type() != fs.ModeSocket {
			continue
		}
		if st, err := e.Info(); err == nil {
			all = append(all, server{host: dir, port: uint16(port), uid: int(st.Sys().(*syscall.Stat_t).Uid)})
		}
	}
	return all
}

// A postmaster is the first process of a running server.
type postmaster struct {
	pid       int
	data      string // directory
	directory string // the first of its sockets'; "" for none
	port      uint16
}

// owns tells whether this server listens on a socket.
func (p postmaster) owns(s server) bool {
	if p.port != s.port {
		return false
	}
	if dir, err := filepath.EvalSymlinks(p.directory); err == nil && dir == s.host {
		return true
	}
	pid, err := lockedBy(s) // of its further ones
	return err == nil && pid == p.pid
}

// lockedBy tells which process made a socket: the first line of the lock file
// beside it.
func lockedBy(s server) (int, error) {
	b, err := os.ReadFile(s.socket() + ".lock")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}

// postmasters finds running servers by their working directory, which is the
// data directory, and by the file postmaster.pid in it, which has the process,
// the data directory, the time, the port and the directory of the first socket,
// a line each (storage-file-layout; miscinit.c, AddToDataDirLockFile).
func postmasters() ([]postmaster, error) {
	var all []postmaster
	err := process.Processes(func(pid int) {
		if n := process.Name(pid); n != "postgres" && n != "postmaster" {
			return
		}
		cwd := fmt.Sprintf("/proc/%d/cwd", pid)
		b, err := os.ReadFile(cwd + "/postmaster.pid")
		if err != nil {
			return
		}
		lines := strings.Split(string(b), "\n")
		if len(lines) < 5 || strings.TrimSpace(lines[0]) != strconv.Itoa(pid) {
			return // one of its children, or in a container
		}
		data, err := os.Readlink(cwd)
		if err != nil || !same(cwd, data) {
			return // in a mount namespace of its own
		}
		port, err := strconv.ParseUint(strings.TrimSpace(lines[3]), 10, 16)
		if err == nil {
			all = append(all, postmaster{pid, data, strings.TrimSpace(lines[4]), uint16(port)})
		}
	})
	return all, err
}

func same(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// pathsOf are the directories of a cluster: the data directory, where its
// symbolic links lead, and where its tablespaces are. Logs are no data.
func pathsOf(data string) []string {
	all := []string{data}
	for _, dir := range []string{data, filepath.Join(data, "pg_tblspc")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Type() != fs.ModeSymlink || e.Name() == "log" || e.Name() == "pg_log" {
				continue
			}
			p, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
			if err == nil && !slices.ContainsFunc(all, func(a string) bool { return below(p, a) }) {
				all = append(all, p)
			}
		}
	}
	return all
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
