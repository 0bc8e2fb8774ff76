package main

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/scratch"
)

// TestRunSet runs programs that see a whole set of volumes at one instant at the
// live paths.
func TestRunSet(t *testing.T) {
	scratch.NeedRoot(t)
	w := newWorld(t)
	for _, part := range []struct {
		name string
		test func(*world)
	}{{"same", runSame}, {"nothing can be written", runWrites}, {"applications at rest", runAtRest}, {"ends", runEnds}} {
		t.Run(part.name, func(t *testing.T) {
			in := *w
			in.t = t
			part.test(&in)
			if left := w.left(); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
		})
	}
}

// listing prints all that can be seen of paths. What cannot be the same is not
// asked for:
//
//   - device numbers (st_dev; %D of find, %d of stat) and the type and source of
//     mounts (%F of find, df): a snapshot is another file system than the live
//     one, or the kernel would keep their files together,
//   - the order of names in a directory, in which none is promised,
//   - the sizes of btrfs (df), of which the snapshot itself takes some, and its
//     top level, where the snapshot lies: the world has, as servers do, a
//     subvolume,
//   - how ext4 keeps files on the disk (the flags e and I of lsattr),
//   - what mount flags say: a snapshot is mounted read-only, and its device files
//     and set-user-id bits have no effect,
//   - that of a btrfs subvolume in another one: it is a snapshot of its own,
//   - the mount that a path below one shows (%m of stat, %T of df): the path is
//     a mount of its own, which is why mounts are compared with what is expected.
const listing = `
export LC_ALL=C
cd /
ls -laR --time-style=full-iso -- "$@"
find "$@" -printf '%p|%P|%h|%d|%y|%Y|%l|%m|%M|%U|%G|%u|%g|%n|%s|%b|%k|%S|%i|%A@|%B@|%C@|%T@\0' | sort -z | tr '\0' '\n'
find "$@" -print0 | sort -z | xargs -0 stat -c '%a %A %b %B %f %F %g %h %i %n %N %o %s %t %T %u %w %W %x %X %y %Y %z %Z'
find "$@" -type f -print0 | sort -z | xargs -0 sha256sum
find "$@" \( -type f -o -type d \) -print0 | sort -z | xargs -0 lsattr -d | awk '{ flags = $1; gsub(/[eI]/, "-", flags); print flags substr($0, length($1) + 1) }'
find "$@" -print0 | sort -z | xargs -0 getfattr -hd -m- -e hex --absolute-names
find "$@" -type l -print0 | sort -z | xargs -0 readlink
for path in "$@"; do find "$path" -type d -name tree; done | sort | while read -r dir; do
	case $dir in */btrfs/*|*/bound/*) ;; *) stat -f -c '%n %a %b %c %d %f %l %s %S' "$dir"; df --output=size,used,avail,pcent,itotal,iused,iavail "$dir" ;; esac
done
`

// mountPoints prints where something is mounted at the paths and below.
const mountPoints = `for path in "$@"; do cut -d' ' -f5 /proc/self/mountinfo | grep -e "^$path\$" -e "^$path/" || true; done`

// runSame compares what a program sees with what everybody else sees, before and
// after, byte for byte.
func runSame(w *world) {
	before := w.sh(listing, w.paths...)
	inside := w.run(7, append([]string{"sh", "-euc", listing + "exit 7", "sh"}, w.paths...)...)
	after := w.sh(listing, w.paths...)
	for what, got := range map[string]string{"the program sees": inside, "afterwards there is": after} {
		if lines, differ := differences(before, got); differ {
			w.t.Errorf("%s other things than before, these first:\n%s", what, lines)
		}
	}
	if n := strings.Count(before, "\n"); n < 3000 {
		w.t.Errorf("the listing has %d lines only", n)
	}
	want := append(strings.Fields(w.sh(mountPoints, w.paths...)), w.paths[1], w.paths[2], w.btrfs+"/sub") // no mounts live
	got := strings.Fields(w.run(0, append([]string{"sh", "-euc", mountPoints, "sh"}, w.paths...)...))
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		w.t.Errorf("the program sees the mounts\n%q, and live there are\n%q", got, want)
	}
	if len(want) != 10 {
		w.t.Errorf("mounts %q", want)
	}
}

// differences are the first lines that are not the same.
func differences(want, got string) (lines string, differ bool) {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < min(len(a), len(b)) && strings.Count(lines, "\n") < 24; i++ {
		if a[i] != b[i] {
			lines += "- " + a[i] + "\n+ " + b[i] + "\n"
		}
	}
	if len(a) != len(b) {
		lines += "one has more lines\n"
	}
	return lines, want != got
}

// runAtRest runs a program that copies what it sees, while another one writes to
// all volumes in turn and then into a database.
func runAtRest(w *world) {
	dirs := []string{w.s + "/part/round", w.d + "/round", w.d + "/in/xfs/round", w.btrfs + "/round"}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Run("rounds", func(t *testing.T) {
		r := rounds(t, dirs)
		for i := range 2 {
			before, out := r.done.Load(), t.TempDir()
			w.run(0, append([]string{"sh", "-euc", `to=$1; shift; sleep 0.2; cp -a --parents -- "$@" "$to"`, "sh", out}, dirs...)...)
			got := numbersIn(t, out, dirs)
			for k := 1; k < len(got); k++ {
				if got[k] > got[k-1] {
					t.Errorf("run %d sees %v", i, got)
				}
			}
			if got[0]-got[len(got)-1] > 1 || got[0] < before {
				t.Errorf("run %d sees %v, and there were %d rounds before", i, got, before)
			}
		}
	})
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			w.t.Error(err)
		}
	}
}

// runEnds looks at exit codes and signals.
func runEnds(w *world) {
	w.run(137, "sh", "-c", "kill -9 $$")
	for _, s := range []struct {
		send syscall.Signal
		code int
	}{{syscall.SIGTERM, 9}, {syscall.SIGHUP, 129}} {
		c := w.command("sh", "-c", `trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done`)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			w.t.Errorf("the program says %q, %v", line, err)
		}
		if err := c.Process.Signal(s.send); err != nil {
			w.t.Error(err)
		}
		_ = c.Wait() // the exit code says it
		if got := c.ProcessState.ExitCode(); got != s.code {
			w.t.Errorf("%v: exit code %d, not %d", s.send, got, s.code)
		}
	}
}
