package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// A world is a set of volumes as a server may have it, in which nothing happens:
//
//	D                          ext4
//	D/in/xfs                   XFS
//	D/in/xfs/in/btrfs          a subvolume of btrfs
//	D/in/xfs/in/btrfs/sub      a subvolume in that
//	D/bound                    a directory of the btrfs volume, mounted once more
//	D/bound-file               a file of the XFS volume, mounted once more
//	D/memory                   tmpfs
//	S/part, S/alone            a directory and a file of another ext4 volume
//	S/part/again               a directory of D, mounted once more
//
// All are mounted so that reading leaves no trace: what lists them changes
// nothing.
type world struct {
	t     *testing.T
	d, s  string
	btrfs string // its mount point
	paths []string
	env   []string
	bin   string // has the programs stillpoint and vandal
}

func newWorld(t *testing.T) *world {
	quiet := scratch.MountOptions("noatime")
	d, s := scratch.New(t, "ext4", 256*scratch.MiB, quiet), scratch.New(t, "ext4", 128*scratch.MiB, quiet)
	xfs, btrfs := scratch.New(t, "xfs", 320*scratch.MiB, quiet), scratch.New(t, "btrfs", 256*scratch.MiB, quiet)
	w := &world{t: t, d: d.Dir, s: s.Dir, bin: t.TempDir()}
	w.paths = []string{w.d, w.s + "/part", w.s + "/alone"}
	w.programs()
	w.mount(d.Dir+"/in/xfs", xfs.Devices[0], "-o", "noatime")
	w.btrfs = d.Dir + "/in/xfs/in/btrfs"
	scratch.Run(t, "btrfs", "-q", "subvolume", "create", btrfs.Dir+"/data")
	w.mount(w.btrfs, btrfs.Devices[0], "-o", "noatime,subvol=data")
	scratch.Run(t, "btrfs", "-q", "subvolume", "create", w.btrfs+"/sub")
	if err := os.Mkdir(w.s+"/part", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{w.d, d.Dir + "/in/xfs", w.btrfs, w.btrfs + "/sub", w.s + "/part"} {
		w.sh(populate, dir)
	}
	w.mount(w.d+"/bound", w.btrfs+"/tree/a b", "--bind")
	w.sh(`echo alone >"$1"/alone; echo >"$2"; ln -s "$3"/in/xfs/tree "$1"/part/to-xfs; ln -s "$1"/alone "$3"/to-alone`, w.s, w.d+"/bound-file", w.d)
	w.mount(w.d+"/bound-file", w.d+"/in/xfs/tree/plain", "--bind")
	w.mount(w.s+"/part/again", w.d+"/tree/a b", "--bind")
	w.mount(w.d+"/memory", "none", "-t", "tmpfs", "-o", "noatime")
	w.sh(`echo live >"$1"/file; sync`, w.d+"/memory")
	return w
}

// populate makes what a file system can have.
const populate = `mkdir "$1/tree"; cd "$1/tree"
echo plain >plain; : >empty; ln plain plain-too; chmod 4751 plain; chown 1234:5678 empty
truncate -s 10M holes; echo end >>holes; head -c 300000 /dev/urandom >random
mkdir -m 1777 'a b'; echo x >'a b/-rf'; echo y >'a b/  '; ln -s '../plain' 'a b/link'
printf x >"$(printf '\377\376no text')"; printf y >"$(printf 'two\nlines\033')"; mkdir "$(printf 'caf\351')"
: >"$(printf '%0255d' 0)"
ln -s /etc/hostname out; ln -s nowhere dangling; ln -s loop loop; ln -s "$1"/tree/random absolute; ln -s "$(printf '\377')" no-text
mkfifo -m 600 fifo; mknod null c 1 3; mknod disk b 7 9999; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")' 2>/dev/null || mkfifo socket
setfattr -n user.note -v words plain; setfattr -n trusted.note -v 0xff00 'a b'; setfacl -m u:4711:r,d:u:4711:rwx 'a b'; chattr +d random
mkdir many deep; (cd many; for i in 0 1 2 3 4 5 6 7 8 9; do for k in 0 1 2 3 4 5 6 7 8 9; do echo $i >n$i$k; done; done)
(cd deep; for i in 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9; do mkdir d$i; cd -P d$i; done; echo deep >file)
touch -h -d '1969-07-20 20:17:40.123456789 UTC' dangling empty; touch -d '2040-01-01 UTC' random
`

// mount mounts something in a new place, a folder unless there is a file, until
// the test ends.
func (w *world) mount(at, what string, options ...string) {
	w.t.Helper()
	if _, err := os.Stat(at); err != nil {
		if err := os.MkdirAll(at, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	scratch.Run(w.t, "mount", append(options, what, at)...)
	w.t.Cleanup(func() { scratch.Run(w.t, "umount", at) })
}

func (w *world) sh(script string, args ...string) string {
	w.t.Helper()
	return scratch.Run(w.t, "sh", append([]string{"-euc", script, "sh"}, args...)...)
}

// programs makes this very program be called stillpoint, and vandal.
func (w *world) programs() {
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(w.bin+"/stillpoint", b, 0o755)
	}
	if err := errors.Join(err, os.Symlink("stillpoint", w.bin+"/vandal")); err != nil {
		w.t.Fatal(err)
	}
	w.env = append(os.Environ(), "PATH="+w.bin+":"+os.Getenv("PATH"), "STILLPOINT_AGENT="+w.bin+"/agent.sock", "STILLPOINT_STATE="+w.bin+"/state")
}

// run is "stillpoint run" of all paths with a program, and what that prints. It
// ends with code.
func (w *world) run(code int, program ...string) string {
	w.t.Helper()
	var said strings.Builder
	c := w.command(program...)
	c.Stderr = &said
	out, err := c.Output()
	if got := c.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("run %q: %v, exit code %d, not %d\n%s%s", program, err, got, code, out, said.String())
	}
	return string(out)
}

func (w *world) command(program ...string) *exec.Cmd {
	args := append(append([]string{"run"}, w.paths...), "--")
	return w.program("stillpoint", append(args, program...)...)
}

// program is a call of one of the programs, with a deadline.
func (w *world) program(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	w.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, filepath.Join(w.bin, name), args...)
	c.Env, c.Dir = w.env, "/"
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	return c
}

// left is what a run has left: snapshots on the btrfs volume, mounts.
func (w *world) left() string {
	w.t.Helper()
	var found []string
	for line := range strings.Lines(scratch.Run(w.t, "btrfs", "subvolume", "list", "-a", w.btrfs)) {
		if !strings.HasSuffix(line, "data\n") && !strings.HasSuffix(line, "data/sub\n") {
			found = append(found, line)
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "stillpoint ") { // the type, or the source, of ours
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// onTmpfs tells whether a path is in memory: what is live in a run, too.
func onTmpfs(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.TMPFS_MAGIC
}
