package mariadb

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
	"stillpoint/internal/sys/process"
)

// A server is a place where one listens.
type server struct {
	socket string // path, resolved
	uid    int    // whom the server runs as
	data   string // the directory it works in; "" when not known

	pid    int    // of the server, 0 where that is not known
	inside string // its data directory as it sees it
	unseen error  // why we do not see that

	// contained says that socket is no path of ours, but one in its container.
	contained bool
}

// id is lasting: in a container that is where the data is, or else what the
// engine calls the container.
func (s server) id() string {
	switch {
	case !s.contained:
		return name + ":" + s.socket
	case s.data != "":
		return name + ":" + s.data
	}
	return fmt.Sprintf("%s:%s:%s", name, container.Name(s.pid), s.inside)
}

// usual are where sockets are.
var usual = []string{"/run/mysqld/*.sock", "/tmp/mysql.sock", "/var/lib/mysql/mysql.sock"}

// servers lists the sockets of running servers, the first of each, and those in
// the usual places.
func (w *mariadb) servers() ([]server, error) {
	var all []server
	add := func(path string, of server) bool {
		s, err := socketAt(path)
		if err != nil || slices.ContainsFunc(all, func(a server) bool { return !a.contained && a.socket == s.socket }) {
			return err == nil
		}
		s.data, s.pid, s.inside = of.data, of.pid, of.inside
		all = append(all, s)
		return true
	}
	err := process.Processes(func(pid int) {
		switch process.Name(pid) {
		case "mariadbd", "mysqld":
			of := server{pid: pid}
			of.data, of.unseen = container.Folder(pid)
			of.inside, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)) // else it has just ended
			for _, path := range listening(pid) {
				if itself, err := container.Listens(pid, path); err == nil && !itself {
					continue // the path leads to another's
				}
				at, err := container.Socket(pid, path)
				switch {
				case err == nil && of.unseen == nil:
					if add(at, of) {
						return
					}
				case err == nil || errors.Is(err, container.ErrUnseen):
					of.socket, of.contained = path, true
					if of.uid, err = of.owner(); err == nil {
						all = append(all, of)
						return
					}
				}
			}
		}
	})
	for _, pattern := range append(slices.Clone(w.Sockets), usual...) {
		paths, _ := filepath.Glob(pattern) // a pattern of ours, or a path
		for _, p := range paths {
			if !isX(p) {
				add(p, server{})
			}
		}
	}
	return all, err
}

// owner is the user of the socket of a server in a container.
func (s server) owner() (int, error) {
	f, err := container.Open(s.pid, s.socket)
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

func socketAt(path string) (server, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return server{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return server{}, err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return server{}, fmt.Errorf("%s is no socket", path)
	}
	return server{socket: path, uid: int(st.Sys().(*syscall.Stat_t).Uid)}, nil
}

// isX tells whether a socket speaks MySQL's other protocol, X.
func isX(path string) bool { return strings.HasPrefix(filepath.Base(path), "mysqlx") }

// listening lists the paths of the Unix sockets on which a process listens, by
// /proc/PID/net/unix: address, references, protocol, flags, type, state, inode
// and path (proc_pid_net(5)). The flag is __SO_ACCEPTCON of the kernel's net.h.
func listening(pid int) []string {
	const accepts = 1 << 16
	own := sockets(pid)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		return nil
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 8 || !own[f[6]] || !filepath.IsAbs(f[7]) || isX(f[7]) {
			continue
		}
		if flags, err := strconv.ParseUint(f[3], 16, 64); err == nil && flags&accepts != 0 {
			all = append(all, f[7])
		}
	}
	slices.Sort(all)
	return all
}

// sockets are the inodes of a process's sockets.
func sockets(pid int) map[string]bool {
	all := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && err == nil {
			all[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return all
}
