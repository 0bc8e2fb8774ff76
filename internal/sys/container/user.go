package container

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// UserName is what a user is called where a process lives: his number is ours, as
// the kernel tells it, and what it is there, and the name of that, are the
// process's (uid_map of user_namespaces(7), /etc/passwd). It is as good as who
// may write that file: ask Users before.
func UserName(pid, uid int) (string, error) {
	inside, err := insideUser(pid, uid)
	if err != nil {
		return "", err
	}
	b, err := passwd(pid)
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Split(line, []byte(":")); len(f) > 2 && string(f[2]) == strconv.Itoa(inside) {
			return string(f[0]), nil
		}
	}
	return "", failed("find", fmt.Sprintf("user %d of process %d", inside, pid), fs.ErrNotExist)
}

// passwdMost is more than any table of users that is written by hand.
const passwdMost = 4 << 20

// passwd is the table of users of a process, if nobody but its owner can write it.
func passwd(pid int) ([]byte, error) {
	const path = "/etc/passwd"
	fd, _, err := find(pid, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, failed("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o022 != 0 { // a FIFO would keep us waiting
		return nil, failed("open", path, fs.ErrPermission)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, passwdMost))
}

// insideUser is the number that a user of ours has for a process. The kernel shows the
// second number of each line as we see it (user_namespaces(7)).
func insideUser(pid, uid int) (int, error) {
	path := procPath(pid, "uid_map")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		var inside, ours, count int64
		if _, err := fmt.Sscan(string(line), &inside, &ours, &count); err != nil {
			return 0, failed("read", path, unix.EBADMSG)
		}
		if at := int64(uid); at >= ours && at < ours+count {
			return int(inside + at - ours), nil
		}
	}
	return 0, failed("find", fmt.Sprintf("user %d in %s", uid, path), fs.ErrNotExist)
}
