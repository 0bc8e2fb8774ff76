package doctor

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/volume"
)

const roleVariable = "STILLPOINT_DOCTOR_TEST_ROLE"

func TestMain(m *testing.M) {
	guard.Main()
	holder.Main()
	if dir := os.Getenv(roleVariable); dir != "" {
		scan(dir)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// scan is an on-access scanner of the file system of dir, which finds everything
// clean, until its standard input ends.
func scan(dir string) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_LARGEFILE)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM, unix.AT_FDCWD, dir)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				return
			}
			for b := buf[:n]; len(b) >= 24; b = b[binary.NativeEndian.Uint32(b):] {
				event := int32(binary.NativeEndian.Uint32(b[16:]))
				answer := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, uint32(event)), unix.FAN_ALLOW)
				_, _ = unix.Write(fd, answer)
				_ = unix.Close(int(event))
			}
		}
	}()
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString(0)
}

// child starts a program that is ended with the test. It ends by itself when its
// standard input does.
func child(t *testing.T, ready bool, env, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(name, args...)
	if env != "" {
		c.Env = append(os.Environ(), env)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	if ready {
		line, err := bufio.NewReader(out).ReadString('\n')
		if line != "ready\n" {
			t.Fatalf("%s says %q, %v", name, line, err)
		}
	}
	return c
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// subject is about paths of this host.
func subject(t *testing.T, paths ...string) Subject {
	t.Helper()
	table, err := volume.Read(t.Context(), volume.Host())
	must(t, err)
	s, err := NewSubject(table, paths, nil)
	must(t, err)
	return s
}

// look makes one check.
func look(t *testing.T, c Check) []Finding {
	t.Helper()
	return Run(t.Context(), []Check{c})
}

// says fails unless a check has a finding with the result, the code and all the
// words, and returns it.
func says(t *testing.T, fs []Finding, result Result, code problem.Code, words ...string) Finding {
	t.Helper()
next:
	for _, f := range fs {
		for _, w := range words {
			if !strings.Contains(f.Subject+": "+f.Text, w) {
				continue next
			}
		}
		if f.Result == result && f.Code == code {
			if f.Check != "" && (result == Warning || result == Failure) && (f.Means == "" || f.Advice == "") {
				t.Errorf("it does not say what it means and what to do: %+v", f)
			}
			return f
		}
	}
	t.Errorf("no finding is %s [%s] %q:\n%+v", result, code, words, fs)
	return Finding{}
}

// healthy fails if a check has anything to say.
func healthy(t *testing.T, fs []Finding) {
	t.Helper()
	if len(fs) == 0 {
		t.Error("no finding at all")
	}
	for _, f := range fs {
		if f.Result != OK && f.Result != NotApplicable {
			t.Errorf("a healthy host: %+v", f)
		}
	}
}

// recorded is a host whose files are those given, by their paths below its root.
func recorded(t *testing.T, files map[string]string) Host {
	t.Helper()
	dir := t.TempDir()
	h := Host{Proc: filepath.Join(dir, "proc"), Etc: filepath.Join(dir, "etc")}
	must(t, os.MkdirAll(h.Proc, 0o755), os.MkdirAll(h.Etc, 0o755))
	for name, content := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	}
	return h
}

// tableOf is a host with these mounts.
func tableOf(t *testing.T, mountinfo string) *volume.Table {
	t.Helper()
	h := recorded(t, map[string]string{"proc/self/mountinfo": mountinfo})
	dir := filepath.Dir(h.Proc)
	table, err := volume.Read(t.Context(), volume.Roots{Proc: h.Proc, Sys: dir + "/sys", Dev: dir + "/dev", Udev: dir + "/udev", Probe: silent{}})
	must(t, err)
	return table
}

// silent is a probe that knows only that paths are there.
type silent struct{}

func (silent) Locate(path string) (string, int, error) { return path, 0, nil }
func (silent) FileSystem(string, int) (volume.Facts, error) {
	return volume.Facts{Size: 10 << 30, Free: 5 << 30, Used: 5 << 30}, nil
}
func (silent) Superblock(string, string) (string, string, error) { return "", "", nil }
func (silent) PartitionType(string, string, int) (string, error) { return "", nil }

// fill reserves all of a volume but so many bytes.
func fill(t *testing.T, dir string, leave int64) {
	t.Helper()
	var st syscall.Statfs_t
	must(t, syscall.Statfs(dir, &st))
	f, err := os.Create(filepath.Join(dir, "fill"))
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Frsize-leave))
	must(t, f.Sync())
}

func find(t *testing.T, path string) volume.Volume {
	t.Helper()
	v, _ := scratch.Find(t, path)
	return v
}

// soon waits until something is so.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not soon: %s", what)
		}
	}
}
