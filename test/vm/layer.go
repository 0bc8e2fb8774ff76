package vm

import (
	"context"
	"crypto/sha256"
	_ "embed" // for what a layer is made from
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

//go:embed scans.sh
var scansScript []byte

// StartScans is a script that installs what Scans returns and starts it: what looks at all
// disks of a server by itself. What the machine has already stays as it is.
const StartScans = `set -e
tar -C / --keep-directory-symlink --skip-old-files -xf /var/tmp/scans.tar
rm /var/tmp/scans.tar
ldconfig
systemd-sysusers
printf 'blacklist_exceptions {\n\tdevnode "^vd"\n\tproperty ".*"\n}\n' >/etc/multipath.conf
systemctl daemon-reload
udevadm control --reload
modprobe dm-multipath
systemctl start dbus udisks2 multipathd`

// Scans returns what is put into a machine so that it can have udisks and the tools of
// multipath, which come from the archive first if they are not there yet: a minute.
func Scans(ctx context.Context) ([]File, error) {
	dir, err := layer(ctx, "scans", scansScript)
	return []File{{Path: "/var/tmp/scans.tar", From: filepath.Join(dir, "scans.tar")}}, err
}

// layer returns a folder beside the images that a script makes for some words, if there is
// none for this version of the script and these words.
func layer(ctx context.Context, name string, script []byte, words ...string) (string, error) {
	sum := sha256.New()
	sum.Write(script)
	for _, w := range words {
		sum.Write([]byte(w))
	}
	dir := filepath.Join(cache, name+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	l, err := lock(ctx, dir+lockSuffix, syscall.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer l.Close()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	// Under another name first, so that half of one is none.
	part := dir + "-part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	file := filepath.Join(part, name+".sh")
	if err := writeScript(file, script); err != nil {
		return "", err
	}
	if err := combined(exec.CommandContext(ctx, file, append([]string{part}, words...)...)); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	return dir, os.Rename(part, dir)
}
