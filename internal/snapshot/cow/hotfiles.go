package cow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/freeze"
	"stillpoint/internal/sys/inode"
	"stillpoint/internal/sys/opened"
	"stillpoint/internal/sys/process"
)

// How much of the files whose changes nobody would see is copied when.
const (
	copyTime = time.Second // under the freeze, at most
	rounds   = 4           // before it, when there is more than may be copied under it
)

// How long is waited for processes that do not let themselves be looked at: one
// that begins a program does not for so long as it takes, and on a host with much
// to do that is seconds. Before Hold nobody waits for us; from then on
// applications may.
const (
	silentPatience   = 3 * time.Second
	silentImpatience = 300 * time.Millisecond // of the whole of Hold
)

// look finds what is hot, and all else that is open for writing.
func (t *target) look(ctx context.Context) error {
	uses, err := t.scan(ctx)
	for end := t.set.patient(); err == nil && slices.ContainsFunc(uses, silent) && time.Now().Before(end); {
		uses, err = t.scanAgain(ctx, uses, end)
	}
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(uses, silent); i >= 0 {
		return t.unreadable(uses[i])
	}
	t.hot, t.written = nil, nil
	ours := t.set.p.cachesOn(t.Volume())
	for _, u := range uses {
		if ours[u.Inode] {
			continue
		}
		if cold := t.set.p.o.cold; u.Shielded || cold != nil && cold(u) {
			t.written = append(t.written, u)
		} else {
			t.hot = append(t.hot, u)
		}
	}
	return nil
}

// patient is until when is waited for processes that do not answer.
func (s *set) patient() time.Time {
	if s.holding.IsZero() {
		return time.Now().Add(silentPatience)
	}
	return s.holding.Add(silentImpatience)
}

// scanAgain waits until everybody answers who did not, and looks once more.
func (t *target) scanAgain(ctx context.Context, uses []hot.Use, end time.Time) ([]hot.Use, error) {
	for _, u := range uses {
		for silent(u) && !process.Answers(u.PID) && time.Now().Before(end) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return t.scan(ctx)
}

// scan looks at all processes once.
func (t *target) scan(ctx context.Context) ([]hot.Use, error) {
	prober, err := opened.NewProber()
	if err != nil {
		return nil, err
	}
	defer prober.Close()
	if err := t.findLeases(); err != nil {
		return nil, err
	}
	return hot.Scan(ctx, t.device, hot.Options{All: true, Shielded: shielded(prober, t.leased)})
}

func silent(u hot.Use) bool { return u.Kind == hot.Unreadable && u.Path == hot.Silent }

// unreadable is for a process that does not let itself be looked at: it may have
// any file of the volume open or mapped.
func (t *target) unreadable(u hot.Use) error {
	return problem.Newf(problem.UnshieldedFiles, string(t.Volume()), "%s (process %d) cannot be looked at (%s), and may change any file of the volume unseen",
		u.Program, u.PID, u.Path)
}

// mapped adds files that were mapped since.
func (t *target) mapped(numbers map[uint64]bool) {
	for n := range numbers {
		t.hot = append(t.hot, hot.Use{Kind: hot.Mapping, Inode: n, Writes: true})
	}
}

// inodes are the numbers of those files.
func inodes(us []hot.Use) []uint64 {
	seen := map[uint64]bool{}
	var all []uint64
	for _, u := range us {
		if u.Inode != 0 && !seen[u.Inode] {
			seen[u.Inode] = true
			all = append(all, u.Inode)
		}
	}
	return all
}

// An early is a hot file that was copied before the instant.
type early struct {
	copied  *shield.Copied
	handle  inode.Handle
	changed inode.Time
}

// copyAhead copies hot files before the instant where there is more of them
// than may be copied under the freeze, until what changes between two rounds is
// little enough.
//
// What was copied is good if the file's ctime at the instant is the one from
// before the copy. Every change moves it, since Linux 6.13 (multigrain
// timestamps) also when it was only just asked for. A write that began before
// that, and a page that could be stored into without asking, are ended by a
// freeze in between.
func (s *set) copyAhead(ctx context.Context) error {
	for _, t := range s.targets {
		if err := t.look(ctx); err != nil {
			return t.failed("look for open files", err)
		}
	}
	for range rounds {
		var todo []*target
		for _, t := range s.targets {
			size, err := t.sinceEarly()
			if err != nil {
				return t.failed("copy files in use", err)
			}
			if t.worth(size) {
				todo = append(todo, t)
			}
		}
		if len(todo) == 0 {
			return nil
		}
		if err := s.pause(ctx, todo); err != nil {
			return err
		}
		for _, t := range todo {
			if err := t.copyEarly(ctx); err != nil {
				return t.failed("copy files in use", err)
			}
		}
	}
	return nil // what is still too much fails under the freeze, by name
}

// worth tells whether hot files of that size are copied ahead. What has changed
// since it was copied is copied to another place, and the cache file gets nothing
// back: so once there is something, half of the room has to stay. A cache file
// that is full would be no better, and not say who never holds still.
func (t *target) worth(size int64) bool {
	return size > t.set.p.o.Hot && (len(t.early) == 0 || size <= (t.cache.Room()+t.cache.Raisable())/2)
}

// sinceEarly notes how the hot files are now, and returns how much of them is
// not copied as they are.
func (t *target) sinceEarly() (size int64, err error) {
	t.stats = map[uint64]inode.Attributes{}
	for _, n := range t.unleased(t.hot) {
		in := t.builder.Inode(n)
		if in == nil || !in.IsRegular() {
			continue
		}
		fd, err := inode.Place(int(t.filter.root.Fd()), in.Handle)
		if errors.Is(err, syscall.ESTALE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		a, err := inode.Stat(fd)
		syscall.Close(fd)
		if err != nil {
			return 0, err
		}
		if e := t.early[n]; e != nil && e.handle == in.Handle && e.changed == a.Changed {
			continue
		}
		t.stats[n] = a
		size += a.Size
	}
	return size, nil
}

// pause ends all writes that are under way, and takes the right to store into
// mapped pages away.
func (s *set) pause(ctx context.Context, ts []*target) error {
	still, err := s.quieten(ctx)
	if err != nil {
		return err
	}
	defer still()
	if err := s.watched(); err != nil {
		return err
	}
	var errs []error
	for _, t := range ts {
		if err := freeze.Sync(t.filter.root); err != nil {
			errs = append(errs, err)
			break
		}
		if err := t.freeze(ctx); err != nil {
			errs = append(errs, err)
			break
		}
		t.frozen.Store(false)
		_, err := t.file().Thaw() // the freeze alone was wanted, however long it was
		errs = append(errs, err)
	}
	_, err = s.guard.Done()
	return errors.Join(append(errs, err)...)
}

// copyEarly copies what sinceEarly has found.
func (t *target) copyEarly(ctx context.Context) error {
	for _, a := range t.stats {
		t.cache.Raise(a.Size)
	}
	for n, a := range t.stats {
		in := t.builder.Inode(n)
		if in == nil {
			continue
		}
		fd, err := inode.Open(int(t.filter.root.Fd()), in.Handle, syscall.O_RDONLY|syscall.O_NOATIME|syscall.O_CLOEXEC)
		if errors.Is(err, syscall.ESTALE) {
			continue
		}
		if err != nil {
			return err
		}
		c, err := shield.Copy(ctx, t.cache.File, fd, a.Size)
		syscall.Close(fd)
		switch {
		case problem.Is(err, problem.CacheFull), problem.Is(err, problem.CacheLost), ctx.Err() != nil:
			return err
		case err != nil:
			continue // it changed; the next round, or the freeze, gets it
		}
		t.early[n] = &early{c, in.Handle, a.Changed}
	}
	return nil
}

// copyHot saves all of the files whose changes nobody would see. The volume is
// frozen.
func (t *target) copyHot(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	size := t.copyLeased(limited)
	if err := t.shield.Err(); err != nil {
		return err
	}
	for _, n := range t.unleased(t.hot) {
		in := t.index.Inode(n)
		if in == nil || !in.IsRegular() {
			continue
		}
		if e := t.early[n]; e != nil && e.handle == in.Handle && e.changed == in.Ctime && t.shield.Adopt(n, e.copied) {
			continue
		}
		if size += in.Size; size > t.set.p.o.Hot {
			return t.tooHot(fmt.Sprintf("at most %d MiB are copied while the volume stands still", t.set.p.o.Hot>>20))
		}
		t.shield.Save(limited, n, -1, 0, -1)
		if err := t.shield.Err(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err // not for what the files are
		}
		if limited.Err() != nil {
			return t.tooHot(fmt.Sprintf("the volume may stand still for %v, in which they could not all be copied", copyTime))
		}
	}
	return nil
}

// distrusted tells which inodes lie below a directory that something in the
// kernel writes to (the upper directory of an overlay, an export), by ways of
// which not all make events.
func (t *target) distrusted() func(uint64) bool {
	all := map[uint64]bool{}
	var add func(number uint64)
	add = func(number uint64) {
		in := t.index.Inode(number)
		if in == nil || all[number] {
			return
		}
		all[number] = true
		for _, c := range in.Children {
			add(c.Number)
		}
	}
	for _, u := range slices.Concat(t.hot, t.written) {
		if u.Tree {
			add(u.Inode)
		}
	}
	return func(number uint64) bool { return all[number] }
}

// tooHot says who keeps so much open that it cannot be copied, and what it is too
// much for.
func (t *target) tooHot(limit string) error {
	var mine []hot.Use
	var size int64
	seen := map[uint64]bool{}
	for _, u := range t.hot {
		if in := t.index.Inode(u.Inode); in != nil && in.IsRegular() {
			mine = append(mine, u)
			if !seen[u.Inode] {
				size += in.Size
			}
			seen[u.Inode] = true
		}
	}
	var who []string
	for _, g := range hot.ByProcess(mine) {
		who = append(who, g.String())
	}
	return problem.Newf(problem.UnshieldedFiles, string(t.Volume()),
		"%d files of together %d MiB can change unseen, and %s: %s",
		len(seen), size>>20, limit, strings.Join(who, "; "))
}
