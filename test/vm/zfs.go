package vm

import (
	"context"
	_ "embed" // for what the modules are made from
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	dir, err := layer(ctx, "zfs", zfsScript, version)
	if err != nil {
		return nil, fmt.Errorf("ZFS for Linux %s: %w", version, err)
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
