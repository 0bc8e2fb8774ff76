package volume

import (
	"fmt"
	"strconv"
	"strings"
)

// A record is one line of mountinfo (proc_pid_mountinfo(5)), unescaped.
type record struct {
	id, parent int
	device     string // "MAJOR:MINOR"
	root       string // of nsfs and cgroup no path
	point      string
	options    []string // of the mount
	fsType     string
	source     string   // may be empty
	super      []string // options of the superblock
}

// parseMountinfo returns the records of a mountinfo file, and an error for
// each line that is none.
func parseMountinfo(text string) (records []record, bad []error) {
	records = make([]record, 0, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		r, ok := parseRecord(line)
		if !ok {
			bad = append(bad, fmt.Errorf("line of mountinfo not understood: %q", line))
			continue
		}
		records = append(records, r)
	}
	return records, bad
}

// parseRecord reads a line such as
//
//	65 43 0:39 /@ /srv rw,relatime shared:12 - btrfs /dev/sdb rw,subvolid=256,subvol=/@
//
// Fields are separated by exactly one space: an empty source leaves two.
func parseRecord(line string) (record, bool) {
	var r record
	var field [6]string
	rest := line
	for i := range field {
		var ok bool
		if field[i], rest, ok = strings.Cut(rest, " "); !ok {
			return record{}, false
		}
	}
	var err1, err2 error
	r.id, err1 = strconv.Atoi(field[0])
	r.parent, err2 = strconv.Atoi(field[1])
	if err1 != nil || err2 != nil || !isDeviceNumber(field[2]) || !strings.HasPrefix(field[4], "/") {
		return record{}, false
	}
	r.device, r.root, r.point = field[2], unescape(field[3]), unescape(field[4])
	r.options = strings.Split(field[5], ",")

	_, rest, ok := strings.Cut(" "+rest, " - ") // behind the optional fields
	if !ok {
		return record{}, false
	}
	r.fsType, rest, _ = strings.Cut(rest, " ")
	source, super, ok := strings.Cut(rest, " ")
	if !ok || r.fsType == "" {
		return record{}, false
	}
	r.fsType, r.source = unescape(r.fsType), unescape(source)
	r.super = superOptions(r.fsType, super)
	return r, true
}

// superOptions splits the options of a superblock. The path of a btrfs
// subvolume comes last and may hold commas that older kernels do not escape.
func superOptions(fsType, text string) []string {
	last := ""
	if fsType == "btrfs" {
		if i := strings.Index(text, ",subvol=/"); i >= 0 {
			text, last = text[:i], text[i+1:]
		}
	}
	options := strings.Split(text, ",")
	if last != "" {
		options = append(options, last)
	}
	for i, o := range options {
		options[i] = unescape(o)
	}
	return options
}

// unescape reads the octal escapes of seq_escape() in the kernel, "\040".
func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for ; i >= 0; i = strings.IndexByte(s, '\\') {
		b = append(b, s[:i]...)
		s = s[i:]
		if len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b, s = append(b, byte(c)), s[4:]
				continue
			}
		}
		b, s = append(b, '\\'), s[1:]
	}
	return string(append(b, s...))
}

func isDeviceNumber(s string) bool {
	major, minor, ok := strings.Cut(s, ":")
	return ok && isDigits(major) && isDigits(minor)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// option returns the value of a "key=value" among options.
func option(options []string, key string) (string, bool) {
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, key+"="); ok {
			return v, true
		}
	}
	return "", false
}

// part says which part of a volume a record shows. top is the path of the
// volume's root within the file system: of a btrfs subvolume, whose mountinfo
// root counts from the top level, else "/". A deleted root ends in "//deleted"
// (dentry_path() in fs/d_path.c); " (deleted)" is a part of the name, because
// mountinfo does not use d_path().
func part(root, top string) (path string, deleted bool) {
	path, deleted = strings.CutSuffix(root, "//deleted")
	if path == "" {
		path = "/"
	}
	switch {
	case top == "/":
		return path, deleted
	case path == top:
		return "/", deleted
	case top != "" && strings.HasPrefix(path, top+"/"):
		return path[len(top):], deleted
	}
	return path, true // the subvolume is gone, or no longer where its name says
}
