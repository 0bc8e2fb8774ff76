// Package container looks from the host at processes that may have mounts, a
// network and process numbers of their own, as those of containers have, and
// many a service of systemd: where their sockets are for us, which of our paths
// show their files, and what a container is called. It asks the kernel alone,
// and so it is the same to it who made the container (Docker, Podman with root
// and without, containerd, systemd, unshare). It knows no word of the product. A
// failure is the kernel's errno in an fs.PathError, or ErrUnseen.
package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/peer"
	"stillpoint/internal/sys/thread"
)

// ErrUnseen says that no path of ours shows a file.
var ErrUnseen = errors.New("no path of the host shows it")

// Network tells whether a process has a network of its own.
func Network(pid int) (own bool, err error) { return apartIn(pid, "net") }

// Users tells whether a process has users of its own that somebody else than root
// has given it. Anybody may make himself such a process, with any network and any
// mounts that he likes (user_namespaces(7)): what it looks like is no proof of
// what it is. Root does it for services (PrivateUsers of systemd, which Debian's
// Redis has) and containers.
func Users(pid int) (own bool, err error) {
	if own, err = apartIn(pid, "user"); err != nil || !own {
		return own, err
	}
	f, err := os.Open(procPath(pid, "ns/user"))
	if err != nil {
		return true, err
	}
	defer f.Close()
	const getOwner = 0xb704 // NS_GET_OWNER_UID, _IO(0xb7, 4) in linux/nsfs.h
	owner, err := unix.IoctlGetUint32(int(f.Fd()), getOwner)
	if err != nil {
		return true, os.NewSyscallError("ioctl NS_GET_OWNER_UID", err)
	}
	return owner != 0, nil
}

// apartIn tells whether a process has another namespace than we.
func apartIn(pid int, kind string) (bool, error) {
	theirs, err := os.Readlink(procPath(pid, "ns/"+kind))
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink("/proc/self/ns/" + kind)
	return theirs != ours, err
}

// Number is what a process is called by itself, and by those that it lives with:
// the last one of the line NSpid (proc_pid_status(5)).
func Number(pid int) (int, error) {
	path := procPath(pid, "status")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			if all := bytes.Fields(rest); len(all) > 0 {
				return strconv.Atoi(string(all[len(all)-1]))
			}
		}
	}
	return pid, nil // a kernel without such namespaces
}

// name is what engines call a container in its control group: 64 digits, as in
// docker-0123….scope, libpod-0123….scope, cri-containerd-0123….scope, or alone.
var name = regexp.MustCompile(`[0-9a-f]{64}`)

// unit is who keeps a process where no engine numbers containers, in the hierarchy
// that the manager of the system has: its own service, a machine of
// systemd-nspawn or libvirt, a container of LXC. Below a service, and in what
// users have, anybody may call his groups what he likes.
var unit = regexp.MustCompile(`(?m)^\d+:(?:name=systemd)?:/(?:system\.slice/(?:system-[^/\n]+\.slice/)?([^/\n]+\.service)|machine\.slice/(machine-[^/\n]+\.scope)|(lxc\.payload\.[^/\n]+)|(lxc/[^/\n]+))(?:/|$)`)

// Name is the short name of the container that a process lives in, as engines
// print it, or of the service; it lasts while processes come and go. Where none
// is known, it is "process" and its number, which does not.
func Name(pid int) string {
	b, _ := os.ReadFile(procPath(pid, "cgroup"))
	if in := nameIn(string(b)); in != "" {
		return in
	}
	return fmt.Sprintf("process %d", pid)
}

// nameIn finds it in what the kernel says of control groups (cgroups(7)).
func nameIn(groups string) string {
	if all := name.FindAllString(groups, -1); len(all) > 0 {
		return all[len(all)-1][:12] // the innermost
	}
	if found := unit.FindStringSubmatch(groups); found != nil {
		return strings.Join(found[1:], "") // one of them
	}
	return ""
}

// Socket returns the path by which we see what is a socket at path to a process:
// that very path, or one of the directory that it lies in. Where there is none
// the error wraps ErrUnseen, and Open reaches it all the same.
func Socket(pid int, path string) (string, error) {
	fd, theirs, err := find(pid, path)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if ours, err := filepath.EvalSymlinks(path); err == nil && same(fd, ours) {
		return ours, nil
	}
	dir, err := Path(pid, filepath.Dir(theirs))
	if err != nil {
		return "", err
	}
	if at := filepath.Join(dir, filepath.Base(theirs)); same(fd, at) {
		return at, nil
	}
	return "", &fs.PathError{Op: "find", Path: path, Err: ErrUnseen}
}

// Open opens what path is to a process, to connect to as /proc/self/fd/N: a
// socket with a name is found by its inode, whatever network either side has
// (unix(7)). No link in what belongs to the process leads us elsewhere.
func Open(pid int, path string) (*os.File, error) {
	fd, _, err := find(pid, path)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Listens tells whether it is a process itself that listens at what is a socket at
// path to it: a name can be made to lead to another one's. The manager of the
// system may have listened for it (systemd.socket(5)).
func Listens(pid int, path string) (bool, error) {
	f, err := Open(pid, path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	who, err := peer.Listener(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return who == pid || who == 1, err
}

// Dial connects to an address of TCP as a process would.
func Dial(ctx context.Context, pid int, address string) (net.Conn, error) {
	own, err := Network(pid)
	if err != nil {
		return nil, err
	}
	if !own {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	ns, err := os.Open(procPath(pid, "ns/net"))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go thread.Apart(func() {
		var r result
		if r.err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); r.err != nil {
			r.err = failed("setns", ns.Name(), r.err)
		} else {
			r.c, r.err = dial(ctx, address)
		}
		done <- r
	})
	r := <-done
	return r.c, r.err
}

// dial makes the socket on this very thread; package net might use another one.
func dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	family, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: to.Port, Addr: [16]byte(to.IP.To16())})
	if four := to.IP.To4(); four != nil {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(four)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, failed("socket", address, err)
	}
	f := os.NewFile(uintptr(fd), address)
	defer f.Close() // the connection has a duplicate
	if err := unix.Connect(fd, at); err != nil && err != unix.EINPROGRESS {
		return nil, failed("connect", address, err)
	}
	if err := connected(ctx, fd); err != nil {
		return nil, failed("connect", address, err)
	}
	return net.FileConn(f)
}

// connected waits until a connection was made.
func connected(ctx context.Context, fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 20)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

func procPath(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: strings.TrimSpace(object), Err: err}
}
