package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/sys/container"
	"stillpoint/internal/sys/peer"
	"stillpoint/internal/sys/process"
)

// A server is a place where one listens.
type server struct {
	host string // the directory of its socket, resolved; else a name or address
	port uint16
	uid  int    // whom the server runs as
	data string // its data directory, resolved; "" when not known
	dsn  string // how to connect, for one that was not found

	pid    int    // of the server, 0 where that is not known
	inside string // its data directory as it sees it
	unseen error  // why we do not see that

	// contained says that host is no path of ours, but one in its container.
	contained bool
}

// id is lasting: in a container that is where the data is, or else what the
// engine calls the container.
func (s server) id() string {
	switch {
	case !s.contained:
		return fmt.Sprintf("%s:%s:%d", name, s.host, s.port)
	case s.data != "":
		return name + ":" + s.data
	}
	return fmt.Sprintf("%s:%s:%s", name, container.Name(s.pid), s.inside)
}

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
		if p.contained == nil {
			dirs = append(dirs, p.directory)
		}
	}
	var all []server
	taken := map[string]bool{} // data directories
	for _, dir := range distinct(dirs) {
		for _, s := range socketsIn(dir) {
			if i := slices.IndexFunc(running, func(p postmaster) bool { return p.owns(s) && p.listens(s) }); i >= 0 {
				s.data, s.pid, s.inside = running[i].data, running[i].pid, running[i].inside
			}
			if s.data != "" && taken[s.data] {
				continue
			}
			taken[s.data] = true
			all = append(all, s)
		}
	}
	for _, p := range running {
		if p.contained != nil && (p.data == "" || !taken[p.data]) {
			all = append(all, *p.contained)
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
	inside    string // the same as the server sees it
	directory string // the first of its sockets'; "" for none
	port      uint16
	contained *server // where its socket's path is none of ours
}

// owns tells whether this server says that it listens on a socket.
func (p postmaster) owns(s server) bool {
	if p.port != s.port || p.contained != nil {
		return false
	}
	if dir, err := filepath.EvalSymlinks(p.directory); err == nil && dir == s.host {
		return true
	}
	pid, err := lockedBy(s) // of its further ones
	return err == nil && pid == p.pid
}

// listens tells whether it does: directories, links and files beside a socket
// can be anybody's. Where nobody can be asked, it is believed.
func (p postmaster) listens(s server) bool {
	pid, err := peer.Listener(s.socket())
	return err != nil || pid == p.pid
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
		if p, ok := postmasterOf(pid); ok {
			all = append(all, p)
		}
	})
	return all, err
}

func postmasterOf(pid int) (p postmaster, ok bool) {
	cwd := fmt.Sprintf("/proc/%d/cwd", pid)
	b, err := os.ReadFile(cwd + "/postmaster.pid")
	number, err2 := container.Number(pid)
	lines := strings.Split(string(b), "\n")
	if err != nil || err2 != nil || len(lines) < 5 || strings.TrimSpace(lines[0]) != strconv.Itoa(number) {
		return p, false // one of its children
	}
	port, err := strconv.ParseUint(strings.TrimSpace(lines[3]), 10, 16)
	if err != nil {
		return p, false
	}
	p = postmaster{pid: pid, directory: strings.TrimSpace(lines[4]), port: uint16(port)}
	var unseen error
	p.data, unseen = container.Folder(pid)
	if p.inside, err = os.Readlink(cwd); err != nil {
		return p, false
	}
	if p.directory == "" {
		return p, unseen == nil // it listens on ports alone
	}
	path := filepath.Join(p.directory, socketPrefix+strconv.Itoa(int(port)))
	if itself, err := container.Listens(pid, path); err == nil && !itself {
		return p, false // it leads to another's
	}
	at, err := container.Socket(pid, path)
	switch {
	case err == nil && unseen == nil:
		p.directory = filepath.Dir(at)
		return p, true
	case err != nil && !errors.Is(err, container.ErrUnseen):
		return p, false // it has just ended, or its socket was removed
	}
	s := server{host: p.directory, port: p.port, data: p.data, pid: pid, inside: p.inside, unseen: unseen, contained: true}
	s.uid, err = s.owner()
	p.contained = &s
	return p, err == nil
}

// owner is the user of the socket of a server in a container.
func (s server) owner() (int, error) {
	f, err := container.Open(s.pid, s.socket())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return int(st.Sys().(*syscall.Stat_t).Uid), nil
}
