package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/volume"
)

// Permission events (linux/fanotify.h): whoever accesses what is marked with one
// waits until the listener has answered.
const (
	openPerm     = 0x10000
	accessPerm   = 0x20000
	openExecPerm = 0x40000
	preAccess    = 0x100000
	permission   = openPerm | accessPerm | openExecPerm | preAccess
)

// Scanners looks for programs that are asked before others may access files, as
// on-access virus scanners are, on the volumes of the subject or on those of
// cache files. own tells which processes are ours.
func Scanners(h Host, s Subject, caches []volume.Volume, own func(pid int) bool) Check {
	return Check{Name: "scanners", Look: func(ctx context.Context) ([]Finding, error) {
		var found []Finding
		processes, denied := 0, 0
		groups := newGroups()
		err := eachProcess(ctx, h, func(pid int, dir string) {
			processes++
			ms, err := groups.of(ctx, dir)
			if errors.Is(err, fs.ErrPermission) {
				denied++
			}
			if len(ms) == 0 || own(pid) {
				return
			}
			if f, concerns := scanner(s, caches, named(program(dir), pid), ms); concerns {
				found = append(found, f)
			}
		})
		if err == nil {
			err = onlyRoot(denied, processes)
		}
		if len(found) == 0 && err == nil {
			found = append(found, fine("nobody else is asked before files are accessed%s", except(denied)))
		}
		return found, err
	}}
}

// onlyRoot is about processes that another user may not look at. In a sandbox
// there may be one or two that even root may not.
func onlyRoot(denied, of int) error {
	if denied <= max(2, of/10) {
		return nil
	}
	return problem.Newf(problem.LookFailed, "", "processes that cannot be looked at without being root: %d", denied)
}

// except says of how many processes nothing is known.
func except(denied int) string {
	if denied == 0 {
		return ""
	}
	return fmt.Sprintf("; processes that cannot be looked at: %d", denied)
}

// Own tells which processes are ours: those that run this very program, or one
// of its name. The agent's helpers are called "exe", and their file may have been
// replaced by a newer one (package tool).
func Own(h Host) func(pid int) bool {
	self, err := os.Stat(filepath.Join(h.Proc, "self/exe"))
	return func(pid int) bool {
		dir := filepath.Join(h.Proc, strconv.Itoa(pid))
		file, _ := os.Readlink(filepath.Join(dir, "exe"))
		if strings.HasPrefix(program(dir), ours) || strings.HasPrefix(filepath.Base(file), ours) {
			return true
		}
		other, oerr := os.Stat(filepath.Join(dir, "exe"))
		return err == nil && oerr == nil && os.SameFile(self, other)
	}
}

const ours = "stillpoint"

func scanner(s Subject, caches []volume.Volume, who string, ms []mark) (f Finding, concerns bool) {
	var read, cache []string
	for _, m := range ms {
		for _, v := range s.Volumes {
			if m.on(v) && !slices.Contains(read, at(v)) {
				read = append(read, at(v))
			}
		}
		for _, v := range caches {
			if m.on(v) && !slices.Contains(cache, at(v)) {
				cache = append(cache, at(v))
			}
		}
	}
	what := ""
	if len(read) > 0 {
		what = ", so on " + strings.Join(read, ", ") + ", which a backup reads"
	}
	if len(cache) > 0 {
		what += ", so on " + strings.Join(cache, ", ") + ", where a cache file may be"
	}
	if what == "" {
		return f, false
	}
	return warned(problem.ScannerActive, who, "is asked before others may access files%s", what).
		so("each file that a backup opens waits for its answer, and each original that is saved where it scans; if it hangs, the backup hangs with it",
			"let it pass over the program stillpoint and the folder of cache files (--cache-dir), or pause it during backups"), true
}

// A mark is one of a fanotify group that asks.
type mark struct {
	device string // "MAJOR:MINOR" of a file system or an inode; empty for a mount
	mount  int    // of the process's own namespace
}

func (m mark) on(v volume.Volume) bool {
	if m.device != "" {
		return m.device == v.Device
	}
	return slices.ContainsFunc(v.Mounts, func(at volume.Mount) bool { return at.ID == m.mount })
}

// A groups finds what processes have marked for permission events. There may be
// many processes, so it makes few calls for each.
type groups struct{ buf []byte }

func newGroups() *groups { return &groups{make([]byte, 16<<10)} }

// of reads what a process has marked. One may have very many files open.
func (g *groups) of(ctx context.Context, dir string) (all []mark, err error) {
	fds, err := file.Open(file.Here, dir+"/fd", file.Read|file.Directory)
	if err != nil {
		return nil, err // gone meanwhile, or not ours to see
	}
	defer func() { _ = file.Close(fds) }()
	err = file.List(fds, g.buf, func(name []byte, _ file.Kind, _ uint64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		to, err := file.Readlink(fds, string(name))
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		if err != nil || to != "anon_inode:[fanotify]" {
			return nil // closed meanwhile, or something else
		}
		b, err := os.ReadFile(dir + "/fdinfo/" + string(name))
		if err == nil {
			all = append(all, parseMarks(string(b))...)
		}
		return nil
	})
	return all, err
}

// parseMarks reads lines of proc_pid_fdinfo(5) such as
//
//	fanotify ino:4f969 sdev:800013 mflags:0 mask:3b ignored_mask:40000000 fhandle-bytes:8 …
//	fanotify mnt_id:12 mflags:40 mask:38 ignored_mask:40000003
//	fanotify sdev:fe00001 mflags:0 mask:20000 ignored_mask:20000
//
// The device is as the kernel keeps it (MKDEV in linux/kdev_t.h: twelve bits, and
// twenty for the minor), all numbers hexadecimal. What is ignored makes nobody
// wait.
func parseMarks(text string) (all []mark) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "fanotify ")
		if !ok {
			continue
		}
		var m mark
		var mask, ignored uint64
		for _, field := range strings.Fields(rest) {
			key, value, _ := strings.Cut(field, ":")
			var n uint64
			if _, err := fmt.Sscanf(value, "%x", &n); err != nil {
				continue
			}
			switch key {
			case "sdev":
				m.device = fmt.Sprintf("%d:%d", n>>20, n&(1<<20-1))
			case "mnt_id":
				m.mount = int(n)
			case "mask":
				mask = n
			case "ignored_mask":
				ignored = n
			}
		}
		if mask&^ignored&permission != 0 && (m.device != "" || m.mount != 0) {
			all = append(all, m)
		}
	}
	return all
}
