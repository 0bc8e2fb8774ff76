package hot

import (
	"bytes"
	"os"
	"strings"
	"time"

	"stillpoint/internal/sys/file"
)

// ringName is what a descriptor and a mapping of a ring lead to.
const ringName = "anon_inode:[io_uring]"

// ring looks at a descriptor, if it is one of a ring of io_uring. Files that are
// registered with it need no other descriptor.
func (p *subject) ring(tid, dir int, fd string) error {
	if to, err := file.Readlink(dir, fd); err != nil || to != ringName {
		return nil
	}
	p.rings++
	info := p.path(tid, "fdinfo/"+fd)
	for range 5 {
		b, err := os.ReadFile(info)
		if err != nil {
			return err
		}
		// Nothing is shown while the ring is at work (io_uring_show_fdinfo()
		// in io_uring/fdinfo.c takes its lock only if it is free).
		if files, ok := registered(b); ok {
			for _, path := range files {
				p.registeredFile(path)
			}
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	p.uses = append(p.uses, Use{Kind: Ring, Path: "files of a ring that is at work all the time", Writes: true})
	return nil
}

// registered reads the lines after "UserFiles:", such as
//
//	UserFiles:	2
//	    0: /srv/data/file\040name
//	UserBufs:	0
//
// ok is false where there is no such part.
func registered(fdinfo []byte) (paths []string, ok bool) {
	_, rest, ok := bytes.Cut(fdinfo, []byte("UserFiles:"))
	if !ok {
		return nil, false
	}
	_, rest, _ = bytes.Cut(rest, []byte("\n"))
	for line := range strings.Lines(string(rest)) {
		number, path, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.Trim(number, "0123456789") != "" {
			break
		}
		paths = append(paths, unescape(path))
	}
	return paths, true
}

// registeredFile adds a file of a ring. Only its path is known, and not how it
// was opened.
func (p *subject) registeredFile(path string) {
	if !strings.HasPrefix(path, "/") {
		return // a socket, a pipe
	}
	u := Use{Kind: Ring, Path: path, Writes: true}
	bare, deleted := strings.CutSuffix(path, " (deleted)")
	st, err := file.Stat(file.Here, p.path(p.pid, "root")+path, file.NoAutomount|file.Cached)
	if err != nil && deleted {
		u.Path = bare
	}
	switch {
	case err == nil && (st.Device != p.s.dev || st.Kind != file.Regular):
		return
	case err == nil:
		u.Inode = st.Inode
	}
	p.uses = append(p.uses, u)
}

// unescape replaces the octal escapes of seq_path() and its like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, ok := octal(s[i+1 : i+4]); ok {
				b.WriteByte(n)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) (n byte, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | (c - '0')
	}
	return n, true
}
