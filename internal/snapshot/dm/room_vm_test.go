//go:build vm

package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/sys/loop"
)

// A testRoom is a device of the test's.
type testRoom struct {
	device dm.Device
	size   int64
	remove func() error // may be nil
	waited atomic.Int64 // for another try
}

func (r *testRoom) Name() string                                   { return "room" }
func (r *testRoom) Make(context.Context) (dm.Device, int64, error) { return r.device, r.size, nil }
func (r *testRoom) Wait(int)                                       { r.waited.Add(1); time.Sleep(again / 100) }

func (r *testRoom) Remove(context.Context) error {
	if r.remove != nil {
		return r.remove()
	}
	return nil
}

// over is a device of one table that the test removes.
func over(tb testing.TB, table dm.Target) dm.Device {
	tb.Helper()
	c := control(tb)
	id := name("over")
	d, err := c.Create(id, "TEST-"+id)
	if err == nil {
		tb.Cleanup(func() {
			if err := removeDevice(c, d); err != nil {
				tb.Error(err)
			}
		})
		err = c.Load(d.Number, []dm.Target{table}, false)
	}
	if err == nil {
		err = c.Resume(d.Number, 0)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// newRoom makes one on a device of the test's, which is on a disk.
func newRoom(r *rig) (room *testRoom, lower dm.Device) {
	r.Helper()
	const size = 64
	on := numberOf(r, disk(r, r.TempDir(), name("disk"), size))
	lower = over(r, dm.Target{Length: size << 11, Type: "linear", Params: on.String() + " 0"})
	upper := over(r, dm.Target{Length: size << 11, Type: "linear", Params: lower.Number.String() + " 0"})
	return &testRoom{device: upper, size: size << 20}, lower
}

// takeIn takes a snapshot whose originals go to a room.
func (r *rig) takeIn(room Room) *target {
	r.Helper()
	try := func() (*target, error) {
		serial++
		s, err := New(host).PrepareRoomed(r.Context(), fmt.Sprint("room", serial), []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}}, []Room{room}, Name)
		if err != nil {
			return nil, err
		}
		err = s.Hold(r.Context())
		if err == nil {
			_, err = s.Commit(r.Context())
		}
		if err = errors.Join(err, s.Resume(r.Context())); err != nil {
			return nil, errors.Join(err, s.Abort(context.Background()))
		}
		return s.(*set).targets[0], nil
	}
	t, err := try()
	for range 10 {
		if problem.CodeOf(err) == problem.FreezeBlocked {
			t, err = try()
		}
	}
	r.must(err)
	return t
}

// writes writes a file of the volume anew, and says when it is on the disk.
func (r *rig) writes(content string) <-chan error {
	done := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(r.path("file"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteAt([]byte(strings.Repeat(content, 64<<10)), 0)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		done <- err
	}()
	return done
}

func (r *rig) ends(what string, done <-chan error) {
	r.Helper()
	select {
	case err := <-done:
		r.must(err)
	case <-time.After(time.Minute):
		r.Fatalf("%s does not end", what)
	}
}

// Who writes goes on although the room was suspended and left so. The snapshot is good
// still, unless the room was about to get another table.
func TestRoomSuspended(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	r.ends("a write", r.writes("a"))
	room, _ := newRoom(r)
	was := describe(t, nil)
	s := r.takeIn(room)
	r.must(c.Suspend(room.device.Number))
	r.ends("a write", r.writes("b"))
	if b, err := os.ReadFile(filepath.Join(s.Root(), "file")); err != nil || b[0] != 'a' || s.Err() != nil {
		t.Errorf("it reads %.1q, %v, %v", b, err, s.Err())
	}
	table, err := c.Table(room.device.Number)
	r.must(err)
	r.must(c.Load(room.device.Number, table, false))
	r.must(c.Suspend(room.device.Number))
	r.ends("a write", r.writes("c"))
	r.await("the end of the snapshot", func() bool { return problem.CodeOf(s.Err()) == problem.SnapshotLost })
	if err := s.Err(); !strings.Contains(err.Error(), "suspended") {
		t.Error(err)
	}
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// No snapshot is ended while a copy waits for a device below it: a room is resumed, and
// what that lies on is named. What a process has left is ended so, too.
func TestRoomSuspendedAtTheEnd(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	r.ends("a write", r.writes("a"))
	room, lower := newRoom(r)
	was := describe(t, nil)
	s := r.takeIn(room)
	r.must(c.Suspend(room.device.Number))
	written := r.writes("b")
	r.must(s.Release(t.Context()))
	r.ends("a write", written)
	s = r.takeIn(room)
	r.must(c.Suspend(room.device.Number))
	written = r.writes("c")
	r.must((&leftover{control: c, tag: s.tag.as(kindSnapshot)}).Release(t.Context()))
	r.ends("a write", written)
	r.must(s.Release(t.Context()))

	s = r.takeIn(room)
	r.must(c.Suspend(lower.Number))
	written = r.writes("d")
	began := time.Now()
	err := s.Release(t.Context())
	took := time.Since(began)
	r.must(c.Resume(lower.Number, 0))
	if !problem.Is(err, problem.ReleaseFailed) || !problem.Is(err, problem.DeviceSuspended) || !strings.Contains(err.Error(), lower.Name) || took > 20*time.Second {
		t.Errorf("it was released: %v, after %v", err, took)
	}
	r.ends("a write", written)
	r.await("the end of the snapshot, with no other call", s.isReleased)
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A device that has got the number of a room is not written to.
func TestRoomReplaced(t *testing.T) {
	r := newRig(t, plain, "ext4")
	room, _ := newRoom(r)
	was := describe(t, nil)
	room.device.UUID += "-before" // as if that one had been removed
	_, err := New(host).PrepareRoomed(t.Context(), "replaced", []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}}, []Room{room}, Name)
	if problem.CodeOf(err) != problem.Busy {
		t.Errorf("got %v, want busy", err)
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A room whose removal takes long lets nobody wait who asks about the snapshot; one that
// cannot be removed is tried again without any lock, when who gave it says so.
func TestRoomStays(t *testing.T) {
	r := newRig(t, plain, "ext4")
	room, _ := newRoom(r)
	was := describe(t, nil)
	begun, goOn := make(chan bool, 1), make(chan bool)
	var tries atomic.Int64
	room.remove = func() error {
		if n := tries.Add(1); n == 1 {
			begun <- true
			<-goOn
		} else if n > 4 {
			return nil
		}
		return problem.Newf(problem.LVMStuck, "room", "it stays")
	}
	s := r.takeIn(room)
	released := make(chan error, 1)
	go func() { released <- s.Release(context.Background()) }()
	<-begun
	asked := make(chan error, 1)
	go func() {
		err := s.Err()
		s.Parts()
		s.Cache()
		if _, there := os.Stat(s.Root()); there == nil {
			err = nil
		}
		if problem.CodeOf(err) == problem.SnapshotLost {
			err = nil
		} else {
			err = fmt.Errorf("a snapshot that is taken away: %v", err)
		}
		asked <- err
	}()
	r.ends("a question", asked)
	l, err := lockOrigins(t.Context())
	r.must(err)
	defer l.release()
	close(goOn)
	if err := <-released; !problem.Is(err, problem.ReleaseFailed) {
		t.Errorf("got %v, want release-failed", err)
	}
	r.await("the end of the room, with no other call", s.isReleased)
	if tries.Load() != 5 || room.waited.Load() != 4 {
		t.Errorf("%d tries, %d pauses", tries.Load(), room.waited.Load())
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A room needs no loop device.
func TestRoomNeedsNoLoop(t *testing.T) {
	r := newRig(t, plain, "ext4")
	r.must(os.Rename(loop.Control, loop.Control+"-away"))
	defer func() { r.must(os.Rename(loop.Control+"-away", loop.Control)) }()
	p := New(host)
	if err := p.Check(t.Context(), r.vs[0].Volume); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "loop") {
		t.Errorf("got %v, want no-provider", err)
	}
	r.must(p.CheckRoomed(t.Context(), r.vs[0].Volume))
}
