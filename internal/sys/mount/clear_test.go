package mount

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Everything at a path and below it is taken out of the namespace, what is
// hidden, too, and nothing beside it.
func TestPrivateClear(t *testing.T) {
	needRoot(t)
	p, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dir := t.TempDir()
	path := dir + "/at #1"
	write(t, dir+"/at #1 too", "")
	write(t, dir+"/other", "")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path+"/file", "live")
	tmpfs := func(at string) error { return unix.Mount("none", at, "tmpfs", 0, "") }
	err = p.Do(func() error {
		for _, at := range []string{path, path + "/a b", path + "/a b/c", path + "/a b"} { // the last one hides the third
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			if err := tmpfs(at); err != nil {
				return err
			}
		}
		return unix.Mount(dir+"/other", dir+"/at #1 too", "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatal(err)
	}
	points := func(at string) (all []string) {
		err := p.Do(func() (err error) { all, err = pointsFrom(at); return err })
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if got := points(path); len(got) != 4 {
		t.Fatalf("mounted %q", got)
	}
	if err := p.Clear(path); err != nil {
		t.Fatal(err)
	}
	if got := points(path); len(got) != 0 {
		t.Errorf("left %q", got)
	}
	if got := points(dir); len(got) != 1 {
		t.Errorf("beside it is %q", got)
	}
	var b []byte
	if err := p.Do(func() (err error) { b, err = os.ReadFile(path + "/file"); return err }); err != nil || string(b) != "live" {
		t.Errorf("what was below: %q, %v", b, err)
	}
}
