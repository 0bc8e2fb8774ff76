package hot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"stillpoint/internal/sys/file"
)

// namespaces are the mount namespaces that processes are in, each with one
// process of it. Workers fill them.
type namespaces struct {
	mu   sync.Mutex
	pids map[uint64]int
}

func newNamespaces() *namespaces { return &namespaces{pids: map[uint64]int{}} }

func (n *namespaces) add(proc string, pid int) error {
	st, err := file.Stat(file.Here, fmt.Sprintf("%s/%d/ns/mnt", proc, pid), file.Cached)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.pids[st.Inode]; !ok {
		n.pids[st.Inode] = pid
	}
	return nil
}

// overlays finds overlays whose upper directory is on the volume. Of what is
// changed through them the kernel makes some events and some not
// (fs/backing-file.c, ovl_setattr() in fs/overlayfs/inode.c).
func (s *scanner) overlays(spaces *namespaces) []Use {
	spaces.mu.Lock()
	defer spaces.mu.Unlock()
	found := map[string]Use{}   // by the overlay's own device
	inside := map[string]bool{} // whether its upper directory was reached
	for _, pid := range spaces.pids {
		b, err := os.ReadFile(fmt.Sprintf("%s/%d/mountinfo", s.o.Proc, pid))
		if err != nil {
			continue // gone; the next pass finds another process there
		}
		for device, upper := range overlaysOf(string(b)) {
			if inside[device] {
				continue
			}
			u, reached := s.overlay(pid, upper)
			inside[device] = reached
			if reached && u.Inode == 0 {
				delete(found, device)
				continue // on another volume
			}
			found[device] = u
		}
	}
	var us []Use
	for _, u := range found {
		us = append(us, u)
	}
	return us
}

// overlay looks for an upper directory where the process sees it, and where
// we see it: containers are shown the overlay, and not what it is made of.
func (s *scanner) overlay(pid int, upper string) (u Use, reached bool) {
	u = Use{Kind: Overlay, Program: "overlay", Path: upper, Writes: true, Tree: true}
	if !filepath.IsAbs(upper) {
		return u, false
	}
	for _, root := range []string{"", fmt.Sprintf("%s/%d/root", s.o.Proc, pid)} {
		st, err := file.Stat(file.Here, root+upper, file.NoAutomount|file.Cached)
		if err != nil || st.Kind != file.Folder {
			continue
		}
		reached = true
		if st.Device == s.dev {
			u.Inode = st.Inode
			return u, true
		}
	}
	return u, reached
}

// overlaysOf returns the upper directories in a mountinfo by the overlays'
// devices. A line is "… 0:45 / /point options - overlay source super-options".
func overlaysOf(mountinfo string) map[string]string {
	uppers := map[string]string{}
	for line := range strings.Lines(mountinfo) {
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - overlay ")
		fields := strings.Fields(head)
		if !ok || len(fields) < 3 {
			continue
		}
		if upper, ok := option(tail[strings.LastIndex(tail, " ")+1:], "upperdir"); ok {
			uppers[fields[2]] = bare(upper)
		}
	}
	return uppers
}

// option returns one of options that commas separate; commas in values are
// escaped like spaces (seq_show_option() in linux/seq_file.h).
func option(options, key string) (string, bool) {
	for o := range strings.SplitSeq(options, ",") {
		if value, ok := strings.CutPrefix(o, key+"="); ok {
			return unescape(value), true
		}
	}
	return "", false
}

// bare takes away the backslashes that mount(8) wants before commas and
// backslashes in the options of overlayfs (ovl_unescape() in
// fs/overlayfs/params.c).
func bare(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+1 < len(path) {
			i++
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// quotas finds the files in the root of the volume that ext4 itself writes
// quotas to: mount options usrjquota=NAME, or aquota.user for the older
// usrquota. Those that are inside the file system have no name.
func (s *scanner) quotas() []Use {
	b, err := os.ReadFile(s.o.Proc + "/thread-self/mountinfo")
	if err != nil {
		return nil
	}
	var us []Use
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "/" || !strings.Contains(f[len(f)-1], "quota") {
			continue
		}
		root := unescape(f[4])
		for _, q := range []struct{ journaled, old, file string }{
			{"usrjquota", "usrquota", "aquota.user"}, {"grpjquota", "grpquota", "aquota.group"},
		} {
			super := f[len(f)-1]
			name, ok := option(super, q.journaled)
			if !ok {
				if !has(super, q.old) {
					continue
				}
				name = q.file
			}
			st, err := file.Stat(file.Here, filepath.Join(root, name), file.NoFollow|file.NoAutomount|file.Cached)
			if err == nil && st.Device == s.dev && st.Kind == file.Regular {
				us = append(us, Use{Kind: Quota, Inode: st.Inode, Program: "quota", Path: filepath.Join(root, name), Writes: true})
			}
		}
	}
	return us
}

func has(options, word string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == word {
			return true
		}
	}
	return false
}
