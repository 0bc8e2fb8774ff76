package hot

import (
	"fmt"
	"strings"
)

// A Group is all uses of one kind by one process, or by one part of the
// kernel.
type Group struct {
	Kind    Kind   `json:"kind"`
	PID     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty"`
	Uses    []Use  `json:"uses"`
}

// ByProcess groups uses for people, in the order in which they first appear.
// Shielded ones are none of their concern.
func ByProcess(us []Use) []Group {
	type owner struct {
		kind    Kind
		pid     int
		program string
	}
	place := map[owner]int{}
	var groups []Group
	for _, u := range us {
		if u.Shielded {
			continue
		}
		o := owner{u.Kind, u.PID, u.Program}
		i, ok := place[o]
		if !ok {
			i = len(groups)
			place[o] = i
			groups = append(groups, Group{Kind: u.Kind, PID: u.PID, Program: u.Program})
		}
		groups[i].Uses = append(groups[i].Uses, u)
	}
	return groups
}

// Files is how many files it is about. Those that are not known count one each.
func (g Group) Files() int {
	known := map[uint64]bool{}
	unknown := 0
	for _, u := range g.Uses {
		if u.Inode == 0 {
			unknown++
		} else {
			known[u.Inode] = true
		}
	}
	return len(known) + unknown
}

// String says who does what, and what can be done about it.
func (g Group) String() string {
	who := g.Program
	if g.PID != 0 {
		who = fmt.Sprintf("%s (pid %d)", g.Program, g.PID)
	}
	files := "1 file"
	if n := g.Files(); n != 1 {
		files = fmt.Sprintf("%d files", n)
	}
	first := ""
	if len(g.Uses) > 0 {
		first = g.Uses[0].Path
	}
	switch g.Kind {
	case Descriptor:
		return fmt.Sprintf("%s has %s open for writing since before the filter; restart it once after the agent runs", who, files)
	case Mapping:
		return fmt.Sprintf("%s has %s mapped, and stores to a mapping make no event", who, files)
	case Ring:
		return fmt.Sprintf("%s has %s registered with io_uring; restart it once after the agent runs", who, files)
	case Loop:
		return fmt.Sprintf("/dev/%s writes to %s; back up what is mounted from it instead", who, first)
	case Swap:
		return fmt.Sprintf("swap goes to %s; leave that out", paths(g.Uses))
	case Overlay:
		return fmt.Sprintf("overlays keep their changes in %s; leave that out, or keep the data of containers in volumes of their own", paths(g.Uses))
	case Kernel:
		return fmt.Sprintf("%s in the kernel serves %s; stop it for the time of the backup, or leave that out", who, paths(g.Uses))
	case Quota:
		return fmt.Sprintf("the file system itself writes %s; leave that out, or use the quota feature of ext4", paths(g.Uses))
	}
	if g.PID == 0 {
		return fmt.Sprintf("the kernel, or what is not seen from here, may have files open: %s", first)
	}
	return fmt.Sprintf("%s may have files open: %s", who, first)
}

// paths names up to three.
func paths(us []Use) string {
	var some []string
	for i, u := range us {
		if i == 3 {
			some = append(some, fmt.Sprintf("and %d more", len(us)-i))
			break
		}
		some = append(some, u.Path)
	}
	return strings.Join(some, ", ")
}
