// Package trust knows which servers are told a password that the configuration
// has for all that are found. What a server is called, where it listens and
// where its files seem to be is whatever somebody likes who starts it, so only who
// he is counts, as the kernel says: root, ourselves, or a user of one of the
// names that the service has. In a container that is the name that the container
// gives him. Of processes with users of their own that somebody else than root
// made nothing is believed.
package trust

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/container"
	"stillpoint/internal/sys/peer"
)

// Connected is nil if the server at the other end of a connection may be told.
// It is asked of the very connection over which the password would go.
func Connected(c net.Conn, users ...string) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return refused("nobody can tell who listens there", users)
	}
	pid, uid, err := peer.Of(u)
	if err != nil {
		return problem.New(problem.WriterFailed, "", err)
	}
	return is(pid, uid, users)
}

// Process is the same of a process that is known to be the server. All its users
// have to be the same: a program with the rights of root that somebody else has
// started may have got his open connections.
func Process(pid int, users ...string) error {
	path := fmt.Sprintf("/proc/%d/status", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return refused("it has just ended", users)
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		all := slices.Compact(strings.Fields(rest))
		if uid, err := strconv.Atoi(all[0]); err == nil && len(all) == 1 {
			return is(pid, uid, users)
		}
	}
	return refused("it runs as several users", users)
}

// is tells whether a user of ours is one of those who may be told.
func is(pid, uid int, users []string) error {
	foreign, err := container.Users(pid)
	switch {
	case uid == 0 || uid == os.Geteuid(): // of our users: that is nobody else, wherever he is
		return nil
	case err != nil:
		return refused("nothing is known of its process", users)
	case foreign:
		return refused("it has users of its own", users)
	}
	name, err := container.UserName(pid, uid)
	if err != nil {
		name = fmt.Sprintf("number %d", uid)
	} else if slices.Contains(users, name) {
		return nil
	}
	return refused("it runs as the user "+name, users)
}

func refused(why string, users []string) error {
	return problem.Newf(problem.WriterPassword, "", "%s, and the password of the configuration is for servers of %s and root alone, and for those that it names", why, strings.Join(users, ", "))
}

// Folder tells whether not everybody can put a socket into a folder that the
// configuration names.
func Folder(dir string) bool {
	st, err := os.Stat(dir)
	return err == nil && st.IsDir() && st.Mode().Perm()&0o002 == 0
}
