package tool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestForeground(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("WORD", "ours")
	for script, want := range map[string]int{
		"exit 0": 0, "exit 3": 3, "kill -TERM $$": 128 + int(syscall.SIGTERM), `test "$WORD" = ours`: 0, "test -e plain": 0,
	} {
		f, err := Find("sh", "-c", script)
		if err == nil {
			err = f.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if code, err := f.Wait(); err != nil || code != want {
			t.Errorf("%s: %d, %v; want %d", script, code, err, want)
		}
	}
	for name, want := range map[string]error{"nosuchprogram": fs.ErrNotExist, dir + "/nosuch": fs.ErrNotExist, plain: fs.ErrPermission} {
		if _, err := Find(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
