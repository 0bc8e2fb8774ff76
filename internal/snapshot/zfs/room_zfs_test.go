//go:build zfs

package zfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

const mib = 1 << 20

// rewrite writes a file from its beginning to its end, in place.
func rewrite(f *os.File, size int64) error {
	block := bytes.Repeat([]byte("Stillpoint\n"), mib/11+1)[:mib]
	for at := int64(0); at < size; at += mib {
		if _, err := f.WriteAt(block, at); err != nil {
			return err
		}
		if at/mib%8 == 7 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

// large makes a file in the dataset a, and leaves it open.
func (p testPool) large(size int64) *os.File {
	p.t.Helper()
	f, err := os.Create(filepath.Join(p.dir, "a/large"))
	must(p.t, err)
	p.t.Cleanup(func() { f.Close() })
	must(p.t, rewrite(f, size))
	must(p.t, syncPool(p))
	return f
}

func syncPool(p testPool) error {
	d, err := open()
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(p.name), d.Close())
}

// readUntilYielded has a file of a snapshot open until that is given up.
func readUntilYielded(s snapshot.Snapshot, name string) error {
	f, err := os.Open(filepath.Join(s.Root(), name))
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		select {
		case <-s.(snapshot.Yielder).Yielded():
			return nil
		default:
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, f, mib); err != nil {
			return err
		}
	}
}

// Who writes anew what a snapshot keeps never finds the pool full, nor his quota, as long
// as the end of the snapshot makes room: it ends at once, when its readers have gone.
func TestGivenUp(t *testing.T) {
	const size, room = 240 * mib, 180 * mib
	for name, narrow := range map[string]func(p testPool){
		"pool":  func(p testPool) { p.narrow(room) },
		"quota": func(p testPool) { p.zfs("set", "quota="+strconv.Itoa(size+room), p.name+"/a") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, "-O", "compression=off")
			p.create("a", "b", "a/deep")
			f := p.large(size)
			narrow(p)
			snaps := take(t, of(p.volume("a"), "."), of(p.volume("b"), "."))
			must(t, errors.Join(snaps[0].Err(), snaps[1].Err()))
			reading := make(chan error, 1)
			go func() { reading <- readUntilYielded(snaps[0], "large") }()
			root := snaps[0].Root()
			for pass := range 3 {
				if err := rewrite(f, size); err != nil {
					t.Fatalf("pass %d: %v", pass, err)
				}
			}
			select {
			case err := <-reading:
				must(t, err)
			case <-time.After(time.Minute):
				t.Fatal("it is not given up")
			}
			for end := time.Now().Add(time.Minute); strings.Contains(p.snapshots(), "/a@") && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				continue // its reader has only just ended
			}
			hasCode(t, "Err", snaps[0].Err(), problem.PoolFull)
			t.Log(snaps[0].Err())
			if _, err := os.Stat(filepath.Join(root, "in")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it still shows: %v", err)
			}
			left := ""
			if name == "quota" { // which is not that of the other one
				must(t, snaps[1].Err())
				reads(t, snaps[1], map[string]string{".": "b"})
				left = p.name + "/b@stillpoint-" + snaps[0].(*target).set.id
			} else {
				hasCode(t, "Err of the other one", snaps[1].Err(), problem.PoolFull)
			}
			if got := p.snapshots(); got != left {
				t.Errorf("left are %q, want %q", got, left)
			}
			must(t, errors.Join(snaps[0].Release(context.Background()), snaps[1].Release(context.Background())))
			hasCode(t, "Err after Release", snaps[0].Err(), problem.PoolFull)
			if left := p.snapshots() + recordNames(t); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// What two sets keep counts for neither alone, and who writes never finds the pool full
// all the same.
func TestGivenUpTogether(t *testing.T) {
	const size, room = 240 * mib, 180 * mib
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	f := p.large(size)
	p.narrow(room)
	snaps := append(take(t, of(p.volume("a"), ".")), take(t, of(p.volume("a"), "."))...)
	for _, s := range snaps {
		must(t, s.Err())
	}
	for pass := range 3 {
		if err := rewrite(f, size); err != nil {
			t.Fatalf("pass %d: %v", pass, err)
		}
	}
	for _, s := range snaps {
		select {
		case <-s.(snapshot.Yielder).Yielded():
		case <-time.After(time.Minute):
			t.Fatal("it is not given up")
		}
		hasCode(t, "Err", s.Err(), problem.PoolFull)
		t.Log(s.Err())
	}
	for end := time.Now().Add(time.Minute); p.snapshots() != "" && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		continue
	}
	if left := p.snapshots(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// A third set that keeps more than enough by itself, and cannot end, since a file of it is
// open, does not keep the others from being given up together.
func TestGivenUpWithout(t *testing.T) {
	const size, room = 240 * mib, 180 * mib
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	old := filepath.Join(p.dir, "a/old")
	must(t, os.WriteFile(old, bytes.Repeat([]byte("old\n"), 40*mib/4), 0o600))
	must(t, syncPool(p))
	stays := take(t, of(p.volume("a"), "."))[0]
	must(t, stays.Err())
	reader, err := os.Open(filepath.Join(stays.Root(), "old"))
	must(t, err)
	defer reader.Close()
	must(t, os.Remove(old))
	f := p.large(size)
	snaps := append(take(t, of(p.volume("a"), ".")), take(t, of(p.volume("a"), "."))...)
	p.narrow(room)
	givenUp(t, stays)
	for _, s := range snaps {
		must(t, s.Err())
	}
	for pass := range 3 {
		if err := rewrite(f, size); err != nil {
			t.Fatalf("pass %d: %v", pass, err)
		}
	}
	for _, s := range snaps {
		givenUp(t, s)
		hasCode(t, "Err", s.Err(), problem.PoolFull)
		t.Log(s.Err())
	}
	p.end(p.name + "/a@stillpoint-" + stays.(*target).set.id)
	must(t, reader.Close())
	p.end("")
}

// givenUp waits until a snapshot is.
func givenUp(t *testing.T, s snapshot.Snapshot) {
	t.Helper()
	select {
	case <-s.(snapshot.Yielder).Yielded():
	case <-time.After(time.Minute):
		t.Fatal("it is not given up")
	}
}

// end waits until no other snapshots are left.
func (p testPool) end(left string) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); p.snapshots() != left; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("left are %q, want %q", p.snapshots(), left)
		}
	}
}

// One that was given up ends soon after its last reader, however long that takes.
func TestGivenUpLate(t *testing.T) {
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	f := p.large(60 * mib)
	s := take(t, of(p.volume("a"), "."))[0]
	must(t, s.Err())
	reader, err := os.Open(filepath.Join(s.Root(), "in"))
	must(t, err)
	defer reader.Close()
	must(t, errors.Join(rewrite(f, 60*mib), syncPool(p)))
	p.narrow(8 * mib)
	select {
	case <-s.(snapshot.Yielder).Yielded():
	case <-time.After(time.Minute):
		t.Fatal("it is not given up")
	}
	time.Sleep(busyLimit + time.Second) // longer than Release would wait
	must(t, reader.Close())
	for end := time.Now().Add(3 * owedMost); p.snapshots() != ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("there is still %s", p.snapshots())
		}
	}
}

// Of two sets of which one keeps what is missing, and its end is enough, the other one
// stays, though together they keep more.
func TestGivenUpAlone(t *testing.T) {
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	f := p.large(200 * mib)
	both := filepath.Join(p.dir, "a/both")
	must(t, os.WriteFile(both, bytes.Repeat([]byte("both"), 2*mib/4), 0o600))
	old := take(t, of(p.volume("a"), "."))[0]
	must(t, old.Err())
	reader, err := os.Open(filepath.Join(old.Root(), "in"))
	must(t, err)
	defer reader.Close()
	must(t, rewrite(f, 200*mib))
	young := take(t, of(p.volume("a"), "."))[0]
	must(t, errors.Join(young.Err(), os.Remove(both), syncPool(p)))
	p.narrow(8 * mib)
	select {
	case <-old.(snapshot.Yielder).Yielded():
	case <-time.After(time.Minute):
		t.Fatal("the old one is not given up")
	}
	time.Sleep(8 * watchEvery) // long enough to be given up; the old one has a reader
	must(t, young.Err())
	must(t, reader.Close())
	for end := time.Now().Add(time.Minute); strings.Contains(p.snapshots(), " "); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("there are still %s", p.snapshots())
		}
	}
	time.Sleep(4 * watchEvery)
	must(t, young.Err())
	reads(t, young, map[string]string{".": "a"})
}

// narrow leaves so much room in the pool.
func (p testPool) narrow(room int64) {
	p.t.Helper()
	free, err := strconv.ParseInt(p.get("available", p.name), 10, 64)
	must(p.t, err)
	p.zfs("create", "-o", "mountpoint=none", "-o", "reservation="+strconv.FormatInt(free-room, 10), p.name+"/reserved")
}

// What a snapshot keeps does not count for a refquota.
func TestReferenceQuota(t *testing.T) {
	const size = 40 * mib
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	f := p.large(size)
	p.quota("refquota", 8*mib)
	s := take(t, of(p.volume("a"), "."))[0]
	must(t, s.Err())
	must(t, rewrite(f, size))
	must(t, syncPool(p))
	time.Sleep(4 * watchEvery) // long enough to be given up
	must(t, s.Err())
	reads(t, s, map[string]string{".": "a"})
}

// Of a full quota in which nobody writes nothing would be freed, until somebody deletes.
func TestFullQuota(t *testing.T) {
	p := newPool(t, "-O", "compression=off")
	p.create("a")
	f := p.large(40 * mib)
	p.quota("quota", 0)
	s := take(t, of(p.volume("a"), "."))[0]
	must(t, s.Err())
	time.Sleep(4 * watchEvery) // long enough to be given up
	must(t, s.Err())
	reads(t, s, map[string]string{".": "a"})
	// Not truncated: that sets times as well, for which a full quota has no room, with
	// a snapshot or without.
	must(t, errors.Join(f.Close(), os.Remove(f.Name())))
	select {
	case <-s.(snapshot.Yielder).Yielded():
	case <-time.After(2 * time.Minute):
		t.Error("it is kept, and with it what was deleted")
	}
	hasCode(t, "Err", s.Err(), problem.PoolFull)
}

// quota limits the dataset a to what it has and some more.
func (p testPool) quota(kind string, more int) {
	p.t.Helper()
	used, err := strconv.Atoi(p.get("used", p.name+"/a"))
	must(p.t, err)
	p.zfs("set", kind+"="+strconv.Itoa(used+more), p.name+"/a")
}

func (p testPool) get(property, dataset string) string {
	p.t.Helper()
	return strings.TrimSpace(p.zfs("get", "-H", "-p", "-o", "value", property, dataset))
}
