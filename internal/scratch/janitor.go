package scratch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/tool"
)

// janitorScript cleans up below the directory $1 when its standard input ends, which
// is when the test's process does, however that happens. If the test cleaned
// up by itself, nothing is left to do.
const janitorScript = `
exec 2>/dev/null # the pipe to the test is gone when this matters
cat >/dev/null
base=$1
[ -d "$base" ] || exit 0
awk -v base="$base/" 'index($5, base) == 1 { print $5 }' /proc/self/mountinfo | tac |
while read -r point; do umount --lazy "$point"; done
for file in /sys/block/loop*/loop/backing_file; do
	case "$(cat "$file" 2>/dev/null)" in
	"$base"/*) device=${file#/sys/block/}; losetup --detach "/dev/${device%%/*}" ;;
	esac
done
awk -v base="$base/" 'index($5, base) == 1 { exit 1 }' /proc/self/mountinfo && rm -r "$base"
`

// A janitor cleans up after this process.
type janitor struct {
	lock    *os.File // held as long as this process lives
	stdin   *os.File
	process *tool.Process
}

const (
	prefix   = "stillpoint-scratch-"
	lockName = "owner"
)

// startJanitor starts one for the directory base.
func startJanitor(tb testing.TB, base string) janitor {
	tb.Helper()
	// The sweep of another test, at just this moment, must not find it unlocked:
	// it gets its name when it is locked.
	fresh := filepath.Join(base, "new-"+lockName)
	lock, err := os.Create(fresh)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(fresh, filepath.Join(base, lockName))
	}
	if err != nil {
		tb.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	p, err := clean(base, r)
	if err != nil {
		tb.Fatal(err)
	}
	return janitor{lock, w, p}
}

// clean starts the script, which waits for the end of stdin.
func clean(base string, stdin *os.File) (*tool.Process, error) {
	c := tool.Command{Name: "sh", Args: []string{"-c", janitorScript, "janitor", base}, Stdin: stdin}
	return c.Start(context.Background(), nil)
}

// stop lets it do what is left to do, and waits for it.
func (j janitor) stop(tb testing.TB) {
	j.stdin.Close()
	if err := j.process.Wait(); err != nil {
		tb.Errorf("scratch: janitor: %v", err)
	}
	j.lock.Close()
}

// sweep removes what earlier tests left that were killed with their janitors.
// What it cannot remove stays for the next one.
func sweep(tb testing.TB) {
	tb.Helper()
	all, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, base := range all {
		lock := abandoned(base)
		if lock == nil {
			continue
		}
		tb.Logf("scratch: %s is of a test that was killed", base)
		if p, err := clean(base, nil); err == nil {
			_ = p.Wait()
		}
		lock.Close()
	}
}

// abandoned opens what it locks when the owner of a scratch directory is dead,
// and returns nil when it lives.
func abandoned(base string) *os.File {
	f, err := os.Open(filepath.Join(base, lockName))
	if errors.Is(err, fs.ErrNotExist) { // half made, or half removed
		if st, err := os.Stat(base); err != nil || time.Since(st.ModTime()) < time.Hour {
			return nil
		}
		f, err = os.Open(base)
	}
	if err != nil {
		return nil
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil
	}
	return f
}
