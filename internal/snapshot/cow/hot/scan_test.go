package hot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/opened"
)

// A role is what a child process of the tests does before it waits.
const roleVariable, dirVariable = "STILLPOINT_TEST_ROLE", "STILLPOINT_TEST_DIR"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		play(role, os.Getenv(dirVariable))
		return
	}
	os.Exit(m.Run())
}

// start starts children that play roles, until the test ends.
func start(t *testing.T, dir string, sys *syscall.SysProcAttr, roles ...string) (pids []int) {
	t.Helper()
	for _, role := range roles {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = sys
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() {
			in.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("%s says %q, %v", role, line, err)
		}
		pids = append(pids, cmd.Process.Pid)
	}
	return pids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func deviceOf(t testing.TB, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	return st.Dev
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	return st.Ino
}

func scan(t *testing.T, dir string, o Options) []Use {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	us, err := Scan(ctx, deviceOf(t, dir), o)
	must(t, err)
	return slices.DeleteFunc(us, func(u Use) bool { // the first process may be that of a container's host
		return u.Kind == Unreadable && u.PID == 1
	})
}

// words are what is told of uses of one process, without its number.
func words(us []Use, pid int) []string {
	var ws []string
	for _, u := range us {
		if u.PID == pid {
			w := fmt.Sprint(u.Kind, " ", filepath.Base(u.Path))
			if u.Kind == Mapping {
				w += fmt.Sprintf(" %d-%d %t", u.From, u.To, u.Writes)
			}
			ws = append(ws, w)
		}
	}
	slices.Sort(ws)
	return ws
}

// volumes runs f with a file system of each kind. Files a to h are in it.
func volumes(t *testing.T, f func(t *testing.T, dir string)) {
	for typ, size := range map[string]int64{"ext4": 64 * scratch.MiB, "xfs": 320 * scratch.MiB} {
		t.Run(typ, func(t *testing.T) {
			v := scratch.New(t, typ, size)
			for c := 'a'; c <= 'h'; c++ {
				must(t, os.WriteFile(filepath.Join(v.Dir, string(c)), make([]byte, 64<<10), 0o600))
			}
			t.Cleanup(func() { release(t, v.Dir) })
			f(t, v.Dir)
		})
	}
}

// release unmounts a volume. A ring lets go of its files only some time after
// its last process has ended.
func release(t *testing.T, dir string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Unmount(dir, 0)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("unmount: %v", err)
			return
		}
	}
}

// Each role has exactly its uses.
func TestRoles(t *testing.T) {
	scratch.NeedRoot(t)
	want := map[string][]string{
		"open":         {"descriptor a", "descriptor b", "descriptor e (deleted)"},
		"map":          {"mapping a 4096-12288 true", "mapping b 0-65536 false", "mapping g (deleted) 0-65536 true"},
		"thread":       {"descriptor a"},
		"first-ended":  {"descriptor a", "mapping b 0-65536 true"},
		"ring":         {"io_uring a", "io_uring with space"},
		"ring-closed":  {"io_uring files of a ring without a descriptor"},
		"ring-deleted": {"io_uring h"},
	}
	volumes(t, func(t *testing.T, dir string) {
		pids := map[string]int{}
		for role := range want {
			pids[role] = start(t, dir, nil, role)[0]
		}
		us := scan(t, dir, Options{})
		for role, pid := range pids {
			if got := words(us, pid); !slices.Equal(got, want[role]) {
				t.Errorf("%s: got %q, want %q", role, got, want[role])
			}
		}
		for _, u := range us {
			if !slices.ContainsFunc([]string{"hot.test", "exe"}, func(n string) bool { return u.Program == n }) {
				t.Errorf("what is %+v?", u)
			}
			if u.Inode == 0 && (u.Kind != Ring || filepath.Base(u.Path) == "a") {
				t.Errorf("which file is %+v?", u)
			}
		}
	})
}

// What is open in other namespaces is found, also below a mount that only they
// have.
func TestNamespaces(t *testing.T) {
	scratch.NeedRoot(t)
	volumes(t, func(t *testing.T, dir string) {
		sys := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}}}
		pid := start(t, dir, sys, "elsewhere")[0]
		want := []string{"descriptor a", "overlay upper1", "overlay upper2"}
		var got []string
		for _, u := range scan(t, dir, Options{}) {
			switch {
			case u.PID == pid:
				got = append(got, fmt.Sprint(u.Kind, " ", filepath.Base(u.Path)))
			case u.Kind == Overlay && u.Inode == inodeOf(t, dir+"/"+filepath.Base(u.Path)) && u.Tree:
				got = append(got, "overlay "+filepath.Base(u.Path))
			default:
				t.Errorf("what is %+v?", u)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// A descriptor that is passed from parent to child, each of which ends at once,
// is found every time.
func TestInherited(t *testing.T) {
	scratch.NeedRoot(t)
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	f, err := os.Create(filepath.Join(v.Dir, "file"))
	must(t, err)
	// The shell forks, the child forks again, and so on.
	cmd := exec.Command("sh", "-c", `hop() { { sleep 0.01; [ -e "$1" ] || exit; hop "$1"; } & exit; }; hop "$0"`, v.Dir+"/go-on")
	must(t, os.WriteFile(v.Dir+"/go-on", nil, 0o600))
	cmd.ExtraFiles = []*os.File{f}
	must(t, cmd.Start())
	must(t, f.Close())
	stop := func() {
		_ = os.Remove(v.Dir + "/go-on")
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && len(scan(t, v.Dir, Options{})) > 0; {
			time.Sleep(10 * time.Millisecond)
		}
	}
	defer stop()
	_ = cmd.Wait()
	// Who is asked about may have been closed, since it was passed on.
	for what, o := range map[string]Options{"": {}, "asked about and ": {Shielded: func(int) bool { return false }}} {
		missed := 0
		const rounds = 30
		for range rounds {
			us := scan(t, v.Dir, o)
			if !slices.ContainsFunc(us, func(u Use) bool { return u.Kind == Descriptor && u.Inode == inodeOf(t, v.Dir+"/file") }) {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("%smissed in %d of %d", what, missed, rounds)
		}
	}
}

// What was opened after the filter was there is not hot.
func TestShielded(t *testing.T) {
	scratch.NeedRoot(t)
	volumes(t, func(t *testing.T, dir string) {
		p, err := opened.NewProber()
		must(t, err)
		defer p.Close()
		var asking atomic.Int32
		o := Options{Shielded: func(fd int) bool {
			if asking.Add(1) > 1 {
				t.Error("asked by several at a time")
			}
			defer asking.Add(-1)
			is, err := p.Emits(fd)
			return err == nil && is
		}}
		before := start(t, dir, nil, "open", "thread")
		watch(t, dir)
		after := start(t, dir, nil, "open", "thread", "map")
		us := scan(t, dir, o)
		for i, want := range [][]string{{"descriptor a", "descriptor b", "descriptor e (deleted)"}, {"descriptor a"}} {
			if got := words(us, before[i]); !slices.Equal(got, want) {
				t.Errorf("opened before: got %q, want %q", got, want)
			}
		}
		for i, want := range [][]string{nil, nil, {"mapping a 4096-12288 true", "mapping b 0-65536 false", "mapping g (deleted) 0-65536 true"}} {
			if got := words(us, after[i]); !slices.Equal(got, want) {
				t.Errorf("opened after: got %q, want %q", got, want)
			}
		}
		o.All = true
		shielded := 0
		for _, u := range scan(t, dir, o) {
			if u.Shielded {
				shielded++
			}
			if u.Kind == Descriptor && u.Shielded != slices.Contains(after, u.PID) {
				t.Errorf("of all, %+v", u)
			}
		}
		if shielded != 4 || len(ByProcess([]Use{{Kind: Descriptor, Shielded: true}})) > 0 {
			t.Errorf("%d are shielded", shielded)
		}
		for range 30 { // what one worker asks about is not found by another one
			if us := scan(t, dir, o); slices.ContainsFunc(us, func(u Use) bool { return u.PID == os.Getpid() }) {
				t.Fatalf("we have a file open ourselves: %+v", us)
			}
		}
		if got := scan(t, dir, Options{Shielded: o.Shielded, Frozen: true}); len(words(got, after[0])) != 3 {
			t.Errorf("where nothing can be asked: %+v", got)
		}
	})
}

// A context that is over ends a scan, also one that waits.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if us, err := Scan(ctx, 1, Options{}); err == nil {
		t.Errorf("got %v", us)
	}
}

// A process that does not answer is named, and the others are found.
func TestStuck(t *testing.T) {
	proc := t.TempDir()
	for _, pid := range []string{"1", "2", "3", "4"} {
		must(t, os.MkdirAll(filepath.Join(proc, pid, "fd"), 0o700))
		must(t, os.MkdirAll(filepath.Join(proc, pid, "task", pid), 0o700))
		must(t, os.MkdirAll(filepath.Join(proc, pid, "ns"), 0o700))
		must(t, os.WriteFile(filepath.Join(proc, pid, "ns/mnt"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(proc, pid, "comm"), []byte("stuck"+pid+"\n"), 0o600))
		must(t, syscall.Mkfifo(filepath.Join(proc, pid, "maps"), 0o600)) // to open it waits
	}
	began := time.Now()
	us, err := Scan(t.Context(), 1, Options{Proc: proc, Passes: 1})
	must(t, err)
	var got []string
	for _, u := range us {
		if u.Kind == Unreadable && u.PID != 0 {
			got = append(got, ByProcess([]Use{u})[0].String())
		}
	}
	if len(got) != 4 || !strings.Contains(got[0], "stuck1 (pid 1) may have files open: does not answer") {
		t.Errorf("got %q", got)
	}
	if d := time.Since(began); d > 4*patience {
		t.Errorf("it took %v", d)
	}
}

// A mapping that may become writable is found, also where somebody has looked at
// a read-only one that was at the same addresses before: the kernel shows its
// mode still.
func TestStaleMode(t *testing.T) {
	volumes(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "a")
		var at unsafe.Pointer
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			must(t, err)
			fixed := 0
			if at != nil {
				fixed = unix.MAP_FIXED
				must(t, unix.MunmapPtr(at, 64<<10))
			}
			at, err = unix.MmapPtr(fd, 0, at, 64<<10, unix.PROT_READ, unix.MAP_SHARED|fixed)
			must(t, errors.Join(err, unix.Close(fd)))
			link, err := os.Lstat(fmt.Sprintf("/proc/self/map_files/%x-%x", uintptr(at), uintptr(at)+64<<10))
			must(t, err)
			t.Logf("opened with %o, the mode of its link is %v", flags, link.Mode().Perm())
			found := words(scan(t, dir, Options{}), os.Getpid())
			want := map[int][]string{unix.O_RDONLY: nil, unix.O_RDWR: {"mapping a 0-65536 false"}}[flags]
			if !slices.Equal(found, want) {
				t.Errorf("opened with %o, found %q, want %q", flags, found, want)
			}
		}
		must(t, unix.MunmapPtr(at, 64<<10))
	})
}
