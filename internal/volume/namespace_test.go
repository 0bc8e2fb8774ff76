package volume

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// inNamespace runs the test once more in a process with a mount namespace of
// its own, and returns true in there. What the test mounts never shows on the
// host, and is gone with the process, however that ends; loop devices that
// mount(8) made go with it.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const marker = "STILLPOINT_TEST_NAMESPACE"
	if os.Getenv(marker) == t.Name() {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount file systems")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), marker+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in its own namespace: %v\n%s", err, out)
	}
	t.Logf("in its own namespace:\n%s", out)
	return false
}

// run runs a program and returns what it prints.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func makeDir(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// scratch makes a directory that takes everything mounted below along when the
// test ends.
func scratch(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bind(t, dir, dir)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// image makes a file with a file system in it.
func image(t *testing.T, name string, size int64, mkfs ...string) string {
	t.Helper()
	writeFile(t, name, "")
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	run(t, append(mkfs, name)...)
	return name
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("bind %s to %s: %v", from, to, err)
	}
}

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("scratch", makeDir(t, dir), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

func readLive(t *testing.T) *Table {
	t.Helper()
	table, err := Read(context.Background(), Host())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// expect looks a path up. full is where all of the volume shows: there the
// path within the volume must lead to the same file.
func expect(t *testing.T, table *Table, path string, id ID, point, rel, full string) Volume {
	t.Helper()
	v, m, gotRel, err := table.Find(path)
	if err != nil {
		t.Errorf("Find(%q): %v", path, err)
		return v
	}
	if v.ID != id || m.Point != point || gotRel != rel {
		t.Errorf("Find(%q):\n got %s | %q | %q\nwant %s | %q | %q", path, v.ID, m.Point, gotRel, id, point, rel)
	}
	if full != "" && !sameFile(t, path, filepath.Join(full, gotRel)) {
		t.Errorf("Find(%q): %q in the volume is another file", path, gotRel)
	}
	return v
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func expectCode(t *testing.T, table *Table, path string, want problem.Code) {
	t.Helper()
	if _, _, _, err := table.Find(path); problem.CodeOf(err) != want {
		t.Errorf("Find(%q): got %v, want %s", path, err, want)
	}
}

func points(mounted []Mounted) []string {
	var all []string
	for _, m := range mounted {
		all = append(all, m.Mount.Point)
	}
	return all
}
