package scratch

import (
	"context"
	"os"
	"testing"

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
	stdin   *os.File
	process *tool.Process
}

// startJanitor starts one for the directory base.
func startJanitor(tb testing.TB, base string) janitor {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	c := tool.Command{Name: "sh", Args: []string{"-c", janitorScript, "janitor", base}, Stdin: r}
	p, err := c.Start(context.Background(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return janitor{w, p}
}

// stop lets it do what is left to do, and waits for it.
func (j janitor) stop(tb testing.TB) {
	j.stdin.Close()
	if err := j.process.Wait(); err != nil {
		tb.Errorf("scratch: janitor: %v", err)
	}
}
