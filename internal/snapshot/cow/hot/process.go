package hot

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/opened"
	"stillpoint/internal/sys/process"
)

// A subject is a process while it is looked at.
type subject struct {
	*worker
	pid   int
	uses  []Use
	rings int // descriptors of them

	flags *process.Flags // of the mappings, once one of them is asked for
}

// process looks at one process: each table of descriptors that its threads
// have, and the memory that they share.
func (w *worker) process(pid int) []Use {
	p := &subject{worker: w, pid: pid}
	err := errSilent
	if w.s.o.Proc != realProc || process.Answers(pid) {
		err = p.look()
	}
	if err != nil && !gone(err) {
		p.uses = append(p.uses, w.s.unreadable(pid, err.Error()))
	}
	for i := range p.uses {
		p.uses[i].PID = pid
		if i == 0 {
			p.uses[i].Program = w.s.program(pid)
		}
		p.uses[i].Program = p.uses[0].Program
	}
	return p.uses
}

var errSilent = errors.New(Silent)

// Silent is the path of the use of a process that did not answer in time: it may
// have any file open or mapped. Others that are Unreadable we have no right to.
const Silent = "does not answer"

// gone tells whether an error means that there is no such task or file any
// more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func (p *subject) look() error {
	tasks, err := p.tables()
	if err != nil {
		return err
	}
	for _, tid := range tasks {
		if err := p.descriptors(tid); err != nil && !gone(err) {
			return err
		}
	}
	if err := p.spaces.add(p.s.o.Proc, p.pid); err != nil && !gone(err) {
		return err
	}
	if p.s.o.Frozen {
		return nil
	}
	return p.memory()
}

// path is that of a file of the process in /proc, of the thread tid if that
// is not the first.
func (p *subject) path(tid int, name string) string {
	if tid == p.pid {
		return fmt.Sprintf("%s/%d/%s", p.s.o.Proc, p.pid, name)
	}
	return fmt.Sprintf("%s/%d/task/%d/%s", p.s.o.Proc, p.pid, tid, name)
}

// threads lists the threads of the process. The number of links to its
// directory tells how many there are (proc_task_getattr() in fs/proc/base.c),
// so that the list is read of few processes only.
func (p *subject) threads() ([]int, error) {
	st, err := file.Stat(file.Here, p.path(p.pid, "task"), file.Cached)
	if err != nil {
		return nil, err
	}
	if st.Links == 3 {
		return []int{p.pid}, nil
	}
	dir, err := file.Open(file.Here, p.path(p.pid, "task"), file.Read|file.Directory)
	if err != nil {
		return nil, err
	}
	defer file.Close(dir)
	var tids []int
	err = file.List(dir, p.names, func(name []byte, _ file.Kind, _ uint64) error {
		tid, err := strconv.Atoi(string(name))
		if err == nil {
			tids = append(tids, tid)
		}
		return err
	})
	return tids, err
}

// tables returns one thread for each table of descriptors. Threads share one
// unless they part (unshare(2), CLONE_FILES), and a first thread that has ended
// before the others has none any more.
func (p *subject) tables() ([]int, error) {
	tids, err := p.threads()
	if err != nil || len(tids) < 2 {
		return tids, err
	}
	distinct := tids[:1:1]
next:
	for _, tid := range tids[1:] {
		for _, other := range distinct {
			same, err := opened.SameTable(other, tid)
			if err != nil && gone(err) {
				continue
			}
			if err == nil && same {
				continue next
			}
		}
		distinct = append(distinct, tid) // also where that cannot be found out
	}
	return distinct, nil
}

// descriptors looks at a table.
func (p *subject) descriptors(tid int) error {
	dir, err := file.Open(file.Here, p.path(tid, "fd"), file.Read|file.Directory)
	if err != nil {
		return err
	}
	defer file.Close(dir)
	return file.List(dir, p.names, func(name []byte, _ file.Kind, _ uint64) error {
		p.goOn()
		fd := string(name)
		// Cached, so that no server is asked. Files of a local file system
		// never fail here; those that do are of others.
		st, err := file.Stat(dir, fd, file.NoAutomount|file.Cached)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return p.refused(tid, err)
		case err != nil:
			return nil
		case st.Device == p.s.dev && st.Kind == file.Regular:
			return p.descriptor(tid, dir, fd, st)
		case st.Device == p.s.anon:
			return p.ring(tid, dir, fd)
		}
		return nil
	})
}

// descriptor looks at one of a file of the volume. The mode of its link says
// how it was opened (tid_fd_update_inode() in fs/proc/fd.c): one of O_PATH has
// no right at all.
func (p *subject) descriptor(tid, dir int, fd string, st file.Info) error {
	link, err := file.Stat(dir, fd, file.NoFollow)
	if err != nil || link.Mode&0o200 == 0 {
		return nil // closed meanwhile, or not for writing
	}
	shielded, open := p.shielded(tid, fd, st)
	if !open || shielded && !p.s.o.All {
		return nil
	}
	path, _ := file.Readlink(dir, fd)
	p.uses = append(p.uses, Use{Kind: Descriptor, Inode: st.Inode, Path: path, Writes: true, Shielded: shielded, Nameless: st.Links == 0})
	return nil
}

// refused is the error of a look that was not allowed. The kernel says so, too, of a
// task that is gone (proc_fd_access_allowed() in fs/proc/base.c).
func (p *subject) refused(tid int, err error) error {
	if _, statErr := file.Stat(file.Here, p.path(tid, "fd"), file.Cached); statErr != nil && gone(statErr) {
		return statErr
	}
	return err
}

// shielded asks about the open file behind a descriptor. It is not open where it was
// closed since it was found: who it was passed on to is found by the next pass.
func (p *subject) shielded(tid int, fd string, st file.Info) (is, open bool) {
	number, err := strconv.Atoi(fd)
	if err != nil || p.s.o.Shielded == nil || p.s.o.Frozen {
		return false, true
	}
	own, err := opened.Duplicate(tid, number)
	if err != nil {
		return false, !errors.Is(err, syscall.EBADF) && !gone(err)
	}
	defer file.Close(own)
	// The number may be another file's by now, about which nothing is asked.
	now, err := file.Stat(own, "", file.Itself|file.Cached)
	if err != nil || now.Inode != st.Inode || now.Device != st.Device {
		return false, err != nil
	}
	p.s.asking.Lock()
	defer p.s.asking.Unlock()
	return p.s.o.Shielded(own), true
}

// memory looks at the mappings.
func (p *subject) memory() error {
	tids := []int{p.pid}
	for i := 0; i < len(tids); i++ {
		err := p.mappings(tids[i])
		if !errors.Is(err, syscall.ESRCH) {
			return err
		}
		// A first thread that has ended has no memory, and the others have
		// theirs still. A kernel thread has none.
		if i == 0 {
			if tids, err = p.threads(); err != nil || len(tids) < 2 {
				return err
			}
			tids = append([]int{p.pid}, tids...)
		}
	}
	return nil
}

// mayWrite tells whether a read-only mapping may become writable; so does one
// that came after the others were looked at.
func (p *subject) mayWrite(tid int, m opened.Mapping) bool {
	if p.flags == nil {
		p.flags = process.FlagsOfMappings(p.path(tid, "smaps"), p.goOn)
	}
	return p.flags.MayBecomeWritable(m.Start, m.End)
}

func (p *subject) mappings(tid int) error {
	p.flags = nil
	maps, err := file.Open(file.Here, p.path(tid, "maps"), file.Read)
	if err != nil {
		return err
	}
	defer file.Close(maps)
	return opened.SharedMappings(maps, func(m opened.Mapping, name func() string) error {
		p.goOn()
		switch {
		case m.Device == p.s.dev:
			p.mapping(tid, m, name)
		case m.Device == p.s.anon && p.rings == 0 && strings.Contains(name(), ringName):
			// A ring that is registered with itself and then closed.
			p.uses = append(p.uses, Use{Kind: Ring, Path: "files of a ring without a descriptor", Writes: true})
		}
		return nil
	})
}

// mapping looks at one of a file of the volume. A read-only one may become
// writable if its file was opened for writing. The mode of its link in map_files
// would say so, but of an earlier mapping of the same addresses, if there was one
// that somebody looked at: the kernel keeps the link (map_files_d_revalidate() in
// fs/proc/base.c).
func (p *subject) mapping(tid int, m opened.Mapping, name func() string) {
	if !m.Writable && !p.mayWrite(tid, m) {
		return
	}
	length := m.End - m.Start
	u := Use{Kind: Mapping, Inode: m.Inode, Path: name(), Writes: m.Writable, From: m.Offset, To: m.Offset + int64(length)}
	if length > math.MaxInt64 || u.To < u.From {
		u.To = math.MaxInt64
	}
	p.uses = append(p.uses, u)
}
