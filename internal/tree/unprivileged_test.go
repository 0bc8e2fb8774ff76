package tree

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// A report is what a restore without root has to say.
type report struct {
	Root     problem.Code // of opening a directory that nobody may enter
	Problems []string
	Unset    []string
}

// TestUnprivileged reads and restores as a user who is not root: everything
// comes back that such a user can have, and the rest is told.
func TestUnprivileged(t *testing.T) {
	scratch.NeedRoot(t)
	from, to := t.TempDir(), t.TempDir()
	place(t, from, "plain", "secret", "set-id", "locked/x", "dir/mine", "link-1")
	b := builder{t: t, root: from}
	b.do(os.Chmod(filepath.Dir(from), 0o755)) // t.TempDir lets nobody in
	b.do(os.Chmod(b.path("secret"), 0o600))
	b.do(os.Chmod(b.path("locked"), 0o700))
	b.do(syscall.Chmod(b.path("set-id"), 0o6755))
	b.do(os.Chown(b.path("dir/mine"), nobody, nobody))
	b.do(os.Symlink("plain", b.path("symlink")))
	b.do(os.Link(b.path("link-1"), b.path("link-2")))
	b.do(syscall.Setxattr(b.path("plain"), "user.x", []byte("y"), 0))
	b.do(syscall.Setxattr(b.path("plain"), "trusted.x", []byte("y"), 0))
	b.do(syscall.Mkfifo(b.path("fifo"), 0o644))
	b.do(syscall.Mknod(b.path("device"), syscall.S_IFCHR|0o644, 1<<8|3))
	b.do(os.Chown(to, nobody, nobody))
	for _, path := range []string{"plain", "dir/mine"} {
		b.do(os.Chtimes(b.path(path), ours, ours))
	}

	r := actUnprivileged(t, from, to)
	if r.Root != problem.NotAllowed {
		t.Errorf("a locked root has the code %q", r.Root)
	}
	if want := []string{
		"not-allowed " + to + "/device",
		"attribute-unread /live/locked", // its flags
		"file-unreadable /live/locked",
		"file-unreadable /live/secret",
	}; !sameElements(r.Problems, want) {
		t.Errorf("problems %q, want %q", r.Problems, want)
	}
	for _, want := range []string{"plain owner", "plain group", "set-id set-ID bits", "symlink owner", "dir owner", "fifo owner"} {
		if !slices.Contains(r.Unset, want) {
			t.Errorf("%q was not told: %q", want, r.Unset)
		}
	}
	for _, u := range r.Unset {
		if strings.HasPrefix(u, "mine ") || !strings.HasSuffix(u, "owner") && !strings.HasSuffix(u, "group") && u != "set-id set-ID bits" {
			t.Errorf("unset: %s", u)
		}
	}
	out := run(t, "rsync", "-nrltHXi", "--omit-dir-times", "--checksum", "--exclude=locked", "--exclude=secret", "--exclude=device", "--exclude=fifo", from+"/", to+"/")
	if got := strings.Fields(out); len(got) != 2 || !strings.HasPrefix(got[0], ".f") || got[1] != "plain" { // its trusted attribute
		t.Errorf("rsync sees differences:\n%s", out)
	}
	info, err := os.Stat(filepath.Join(to, "set-id"))
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("set-id has the mode %v, %v", info.Mode(), err)
	}
}

func sameElements(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

const nobody = 65534

// actUnprivileged starts a copy of this program that others may execute.
func actUnprivileged(t *testing.T, from, to string) report {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	program := filepath.Join(t.TempDir(), "test")
	other, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(other, self)
	if err := errors.Join(err, other.Close()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "STILLPOINT_TREE_TEST_ROLE=unprivileged", "FROM="+from, "TO="+to)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func playUnprivileged(from, to string) int {
	var r report
	_, err := Open(Source{Path: "/live/locked", Root: filepath.Join(from, "locked")})
	r.Root = problem.CodeOf(err)
	c := &copier{}
	if err := c.tree(Source{Path: "/live", Root: from}, to); err != nil {
		c.problems = append(c.problems, err)
	}
	for _, err := range c.problems {
		subject := ""
		if p := (*problem.Problem)(nil); errors.As(err, &p) {
			subject = p.Subject
		}
		r.Problems = append(r.Problems, string(problem.CodeOf(err))+" "+subject)
	}
	for _, u := range c.unset {
		r.Unset = append(r.Unset, u.Name+" "+u.What)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}
