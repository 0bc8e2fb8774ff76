package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // for what an image is made from
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// cache is where images are kept.
const cache = "/var/cache/stillpoint-tests"

//go:embed build.sh
var buildScript []byte

//go:embed unpack.sh
var unpackScript []byte

// An Image is a Debian that was installed once.
type Image struct {
	dir  string
	lock *os.File
}

// OpenImage returns the image for this version of the scripts, which it makes
// first if there is none. Until it is closed, no other process has one: two
// machines at a time are too many for most hosts.
func OpenImage(ctx context.Context) (*Image, error) {
	for _, program := range []string{"qemu-system-x86_64", "mmdebstrap", "unshare", "mkfs.ext4", "mkfs.xfs"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: test/packages vm installs it", err)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	lock, err := flock(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{buildScript, unpackScript}, []byte{0}))
	im := &Image{dir: filepath.Join(cache, "vm-"+hex.EncodeToString(sum[:6])), lock: lock}
	if _, err := os.Stat(im.dir); err == nil {
		return im, nil
	}
	if err := im.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make the image of a machine: %w", err), im.Close())
	}
	return im, nil
}

// Close lets others have it.
func (im *Image) Close() error { return im.lock.Close() }

// build makes the image under another name first, so that half of one is none.
func (im *Image) build(ctx context.Context) error {
	old, err := filepath.Glob(filepath.Join(cache, "vm-*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	part := filepath.Join(cache, "vm-part")
	for name, script := range map[string][]byte{"build.sh": buildScript, "unpack.sh": unpackScript} {
		if err := writeScript(filepath.Join(part, name), script); err != nil {
			return err
		}
	}
	c := exec.CommandContext(ctx, filepath.Join(part, "build.sh"), part)
	if err := combined(c); err != nil {
		return err
	}
	return os.Rename(part, im.dir)
}

func writeScript(name string, script []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, script, 0o755))
}

// combined runs a command, with what it prints in the error.
func combined(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, tail(out))
	}
	return nil
}

// tail is the end of a long text.
func tail(text []byte) string {
	const most = 4000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return strings.TrimSpace(string(text))
}

// flock waits for the lock on a file, which ends with the process.
func flock(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
	select {
	case err = <-locked:
	case <-ctx.Done():
		err = fmt.Errorf("another process has a machine: %w", ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
