package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// Who may write to what is selected points at nothing else with it.
func TestPointedElsewhere(t *testing.T) {
	dir, secret := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(secret+"/config", []byte("[repository]\n"), 0o600), os.WriteFile(secret+"/README", nil, 0o600), os.Mkdir(secret+"/data", 0o700))
	repository := func(name string) string {
		r := filepath.Join(dir, name)
		must(t, os.MkdirAll(r+"/data", 0o700), os.WriteFile(r+"/README", nil, 0o600))
		return r + "/config"
	}
	must(t, syscall.Mkfifo(repository("fifo"), 0o600))
	must(t, os.Symlink(secret+"/config", repository("link")))
	must(t, os.Symlink(secret, dir+"/directory"))
	s := subject(t, dir)
	if fs := look(t, Others(s)); Worst(fs) != OK {
		t.Errorf("got %+v", fs)
	}
	// As a directory that was replaced by a link after its parent was listed.
	if f, err := s.open(dir+"/directory/config", file.Regular); !errors.Is(err, unix.ELOOP) {
		t.Errorf("opened %v, %v", f, err)
	}
	if f, err := s.open(dir+"/directory", file.Folder); err == nil {
		t.Errorf("opened %v", f)
	}
	must(t, os.WriteFile(repository("real"), []byte("[repository]\n"), 0o600))
	says(t, look(t, Others(s)), Warning, problem.BackupInside, dir+"/real", "borg")
}

// Large directories are read in parts, and a file may be selected itself.
func TestLargest(t *testing.T) {
	dir := t.TempDir()
	for i := range 2*listed + 10 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600))
	}
	must(t, os.Mkdir(dir+"/sub", 0o700), os.WriteFile(dir+"/sub/large", make([]byte, 5000), 0o600))
	if got := largest(t.Context(), subject(t, dir)); len(got) != largestFiles || got[0] != dir+"/sub/large" {
		t.Errorf("got %q", got)
	}
	if got := largest(t.Context(), subject(t, dir+"/sub/large")); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	w := &search{s: subject(t, dir), seen: lookedAt - 100, until: time.Now().Add(lookTime)}
	w.walk(t.Context())
	if !w.cut || w.seen > lookedAt+listed {
		t.Errorf("looked at %d names, cut: %v", w.seen, w.cut)
	}
}
