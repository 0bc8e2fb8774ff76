package hot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/opened"
)

// kernel looks at what the kernel itself has open. It calls the file system
// past the place where events are made (loop.c: lo_rw_aio(), nvme/target/
// io-cmd-file.c, target_core_file.c, zloop.c, nfsd/vfs.c: nfsd_setattr()).
func (s *scanner) kernel() []Use {
	us := slices.Concat(s.loops(), s.swaps(), s.quotas(), s.exports(), s.targets())
	// Where we are in a pid namespace of our own, the rest of the host is not
	// seen. The first one has a number of its own (linux/nsfs.h,
	// PID_NS_INIT_INO).
	const first = 0xeffffffc
	if st, err := file.Stat(file.Here, s.o.Proc+"/self/ns/pid", file.Cached); err == nil && st.Inode != first {
		us = append(us, s.unreadable(theKernel, "processes outside of this pid namespace"))
	}
	return us
}

func (s *scanner) loops() []Use {
	dirs, _ := filepath.Glob(s.o.Sys + "/block/loop*/loop/backing_file")
	var us []Use
	for _, d := range dirs {
		name := strings.Split(d[len(s.o.Sys):], "/")[2]
		b, err := opened.LoopBacking("/dev/" + name)
		if errors.Is(err, syscall.ENXIO) || err == nil && (b.ReadOnly || b.Device != s.dev) {
			continue // no longer in use, or none of ours
		}
		path, _ := os.ReadFile(d)
		u := Use{Kind: Loop, Inode: b.Inode, Program: name, Path: strings.TrimSuffix(string(path), "\n"), Writes: true}
		if err != nil { // a container may lack the node
			var known bool
			if u, known = s.named(u); !known {
				continue
			}
		}
		us = append(us, u)
	}
	return us
}

// named completes a use of which only the path is known. It is none of ours
// when the path leads to another volume, and stays without an inode when the
// path leads nowhere.
func (s *scanner) named(u Use) (Use, bool) {
	st, err := file.Stat(file.Here, u.Path, file.NoAutomount|file.Cached)
	switch {
	case err != nil:
		return u, true
	case st.Device != s.dev:
		return u, false
	}
	u.Inode, u.Tree = st.Inode, st.Kind == file.Folder
	return u, st.Kind == file.Folder || st.Kind == file.Regular
}

// swaps reads /proc/swaps: a heading, then lines of a path, escaped and padded,
// and a type (swap_show() in mm/swapfile.c).
func (s *scanner) swaps() []Use {
	b, _ := os.ReadFile(s.o.Proc + "/swaps")
	var us []Use
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[1] != "file" {
			continue
		}
		if u, ok := s.named(Use{Kind: Swap, Program: "swap", Path: unescape(f[0]), Writes: true}); ok {
			us = append(us, u)
		}
	}
	return us
}

// exports reads what nfsd serves: lines of a path, a tab, and for each client
// its options in parentheses (e_show() in fs/nfsd/export.c).
func (s *scanner) exports() []Use {
	b, err := os.ReadFile(s.o.Proc + "/fs/nfsd/exports")
	if err != nil {
		b, _ = os.ReadFile(s.o.Proc + "/fs/nfs/exports")
	}
	var us []Use
	for line := range strings.Lines(string(b)) {
		path, clients, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok || strings.HasPrefix(line, "#") || !strings.Contains(clients, "rw") {
			continue
		}
		if u, ok := s.named(Use{Kind: Kernel, Program: "nfsd", Path: unescape(path), Writes: true}); ok {
			us = append(us, u)
		}
	}
	return us
}

// targets reads which files are served as disks.
func (s *scanner) targets() []Use {
	var us []Use
	add := func(program, path string) {
		u := Use{Kind: Kernel, Program: program, Path: path, Writes: true}
		if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
			return // a block device
		}
		if u, ok := s.named(u); ok {
			us = append(us, u)
		}
	}
	// "… TCM FILEIO ID: 0        File: /srv/disk  Size: 1024  Mode: O_DSYNC …"
	// (fd_show_configfs_dev_params() in drivers/target/target_core_file.c)
	infos, _ := filepath.Glob(s.o.Config + "/target/core/fileio_*/*/info")
	for _, name := range infos {
		b, _ := os.ReadFile(name)
		if _, rest, ok := strings.Cut(string(b), " File: "); ok {
			path, _, _ := strings.Cut(rest, "  Size: ")
			add("target", path)
		}
	}
	paths, _ := filepath.Glob(s.o.Config + "/nvmet/subsystems/*/namespaces/*/device_path")
	for _, name := range paths {
		b, _ := os.ReadFile(name)
		if path := strings.TrimSuffix(string(b), "\n"); strings.HasPrefix(path, "/") {
			add("nvmet", path)
		}
	}
	// What these two write to is told nowhere.
	if zoned, _ := filepath.Glob(s.o.Sys + "/block/zloop*"); len(zoned) > 0 {
		us = append(us, Use{Kind: Kernel, Program: "zloop", Path: "files of zoned loop devices", Writes: true})
	}
	if _, err := os.Stat(s.o.Sys + "/class/ksmbd-control"); err == nil {
		us = append(us, Use{Kind: Kernel, Program: "ksmbd", Path: "shares of the kernel's SMB server", Writes: true})
	}
	return us
}
