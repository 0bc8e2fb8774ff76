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
	"time"
)

// cache is where images are kept.
const cache = "/var/cache/stillpoint-tests"

// Of each image there is a folder, and a lock beside it, which outlives attempts
// to make it.
const (
	prefix     = "machine-"
	lockSuffix = ".lock"
)

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
// first if there is none. Until it is closed it stays; others may have it, too.
func OpenImage(ctx context.Context) (*Image, error) {
	for _, program := range []string{"mmdebstrap", "unshare", "mkfs.ext4", "mkfs.xfs"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: test/packages vm installs it", err)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{buildScript, unpackScript}, []byte{0}))
	im := &Image{dir: filepath.Join(cache, prefix+hex.EncodeToString(sum[:6]))}
	var err error
	if im.lock, err = lock(ctx, im.dir+lockSuffix, syscall.LOCK_SH); err != nil {
		return nil, err
	}
	if im.made() {
		return im, nil
	}
	if err := im.make(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make the image of a machine: %w", err), im.Close())
	}
	return im, nil
}

// Close lets it be removed.
func (im *Image) Close() error { return im.lock.Close() }

func (im *Image) made() bool {
	_, err := os.Stat(im.dir)
	return err == nil
}

// make makes the image, if nobody did while this process waited for the others.
func (im *Image) make(ctx context.Context) error {
	name := im.lock.Name()
	err := im.lock.Close() // two that have it and want more would wait for each other
	if err == nil {
		im.lock, err = lock(ctx, name, syscall.LOCK_EX)
	}
	if err == nil && !im.made() {
		err = im.build(ctx)
	}
	if err == nil {
		err = syscall.Flock(int(im.lock.Fd()), syscall.LOCK_SH)
	}
	return err
}

// build makes the image under another name first, so that half of one is none.
func (im *Image) build(ctx context.Context) error {
	removeOld()
	part := im.dir + "-part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
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

// removeOld removes the images of other versions that nobody has, and that nobody
// had for a day: on a machine with several working copies they would remove each
// other's in turn.
func removeOld() {
	locks, _ := filepath.Glob(filepath.Join(cache, prefix+"*"+lockSuffix))
	for _, name := range locks {
		if fi, err := os.Stat(name); err != nil || time.Since(fi.ModTime()) < 24*time.Hour {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			dir := strings.TrimSuffix(name, lockSuffix)
			_ = os.RemoveAll(dir + "-part")
			if os.RemoveAll(dir) == nil {
				_ = os.Remove(name)
			}
		}
		_ = f.Close()
	}
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

// qemu is the command of the image's own QEMU, with its own libraries.
func (im *Image) qemu() []string {
	usr := filepath.Join(im.dir, "qemu", "usr")
	libraries := filepath.Join(usr, "lib", "x86_64-linux-gnu")
	return []string{
		filepath.Join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries, "--argv0", "qemu-system-x86_64",
		filepath.Join(usr, "bin", "qemu-system-x86_64"), "-L", filepath.Join(usr, "share", "qemu"), "-L", filepath.Join(usr, "share", "seabios"),
	}
}

// lock opens a file, marks it as used now, and waits for the lock on it, which ends
// with the process.
func lock(ctx context.Context, name string, how int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- syscall.Flock(int(f.Fd()), how) }()
	select {
	case err = <-locked:
	case <-ctx.Done():
		err = fmt.Errorf("another process makes the image, or has it: %w", ctx.Err())
	}
	now := time.Now()
	if err == nil {
		err = os.Chtimes(name, now, now)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
