package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // for what the modules are made from
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed zfs.sh
var zfsScript []byte

// StartZFS is a script that loads the modules in a machine that has the files of ZFS.
const StartZFS = "set -e; ldconfig; depmod; modprobe zfs; udevadm settle; zfs version"

// ZFS returns what is put into a machine with this kernel so that it has ZFS, which is
// built first if there is none for that kernel: some ten minutes.
func (im *Image) ZFS(ctx context.Context, kernel string) ([]File, error) {
	version, err := kernelVersion(filepath.Join(im.dir, "kernel-"+kernel))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(bytes.Clone(zfsScript), version...))
	dir := filepath.Join(cache, "zfs-"+hex.EncodeToString(sum[:6]))
	l, err := lock(ctx, dir+lockSuffix, syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := buildZFS(ctx, dir, version); err != nil {
			return nil, fmt.Errorf("build ZFS for Linux %s: %w", version, err)
		}
	}
	files := []File{{Path: "/etc/ld.so.conf.d/zfs.conf", From: filepath.Join(dir, "ld.so.conf")}}
	tree := filepath.Join(dir, "tree")
	err = filepath.WalkDir(tree, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, File{Path: strings.TrimPrefix(name, tree), From: name})
		}
		return err
	})
	return files, err
}

// buildZFS makes the folder under another name first, so that half of one is none.
func buildZFS(ctx context.Context, dir, version string) error {
	part := dir + "-part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	script := filepath.Join(part, "zfs.sh")
	if err := writeScript(script, zfsScript); err != nil {
		return err
	}
	if err := combined(exec.CommandContext(ctx, script, part, version)); err != nil {
		return err
	}
	return os.Rename(part, dir)
}

// kernelVersion reads what "uname -r" will say from a kernel of x86: the boot header has
// an offset at which the text begins (Documentation/arch/x86/boot.rst, kernel_version).
func kernelVersion(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 64<<10)
	if _, err := io.ReadFull(f, b); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	at := int(binary.LittleEndian.Uint16(b[0x20e:])) + 0x200
	if string(b[0x202:0x206]) != "HdrS" || at >= len(b) {
		return "", fmt.Errorf("%s is not a kernel of x86", file)
	}
	text, _, _ := strings.Cut(string(b[at:]), "\x00")
	version, _, _ := strings.Cut(text, " ")
	return version, nil
}
