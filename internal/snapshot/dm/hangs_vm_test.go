//go:build vm

package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
)

// pair is a rig whose cache file lies on another volume of the test's.
func pair(t *testing.T, k kind) (r *rig, carrier snapshot.Target) {
	vs := volumes(t, k, "ext4", 2, 400)
	p, err := New(host).WithCache(snapshot.CacheChoice{Dir: vs[1].Dir})
	r = &rig{t, vs[:1], p}
	r.must(err)
	return r, snapshot.Target{Volume: vs[1].Volume}
}

// The end of a snapshot waits for a cache file whose disk does not answer. It has no lock
// then: commands of LVM work, and so do other processes of ours.
func TestCarrierHangs(t *testing.T) {
	r, carrier := pair(t, linear)
	c := control(t)
	on, err := nearest(carrier.Volume)
	r.must(err)
	was := describe(t, nil)
	r.ends("a write", r.writes("a"))
	s := r.take().(*target)
	r.must(c.Suspend(on))
	defer func() { _ = c.Resume(on, 0) }()
	written := r.writes("b")
	r.await("a write that is under way", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/inflight", s.origin.number))
		return err == nil && strings.Trim(string(b), "0 \t\n") != ""
	})
	released := make(chan error, 1)
	go func() { released <- s.Release(context.Background()) }()
	r.await("the end of the snapshot", func() bool {
		table, err := c.Table(s.snap.Number)
		return err == nil && len(table) == 1 && table[0].Type == "error"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := lockOrigins(ctx)
	r.must(err)
	l.release()
	d, err := c.Status(s.origin.number)
	r.must(err)
	l, err = lockVolumeGroup(ctx, d)
	r.must(err)
	l.release()
	asked := make(chan error, 1)
	go func() {
		s.Cache()
		s.Parts()
		asked <- ignoreCode(s.Err(), problem.SnapshotLost)
	}()
	r.ends("a question", asked)
	select {
	case err := <-released:
		t.Errorf("it has ended: %v", err) // or this test proves nothing
	default:
	}
	r.must(c.Resume(on, 0))
	r.ends("a write", written)
	r.ends("the release", released)
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

func ignoreCode(err error, code problem.Code) error {
	if problem.CodeOf(err) == code {
		return nil
	}
	return fmt.Errorf("want %s, got: %w", code, err)
}

// A snapshot that is lost, and that somebody hinders us to take away, is taken away when
// nobody does any more. It goes on to say why it is lost.
func TestLostHindered(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	was := describe(t, nil)
	s := r.take().(*target)
	other := []dm.Target{{Length: 8, Type: "zero"}}
	r.must(c.Load(s.origin.number, other, false))
	s.lose(errors.New("the test says so"))
	r.await("the end of the snapshot", func() bool {
		_, err := c.StatusOf(s.tag.as(kindSnapshot).uuid())
		return errors.Is(err, dm.ErrNone)
	})
	r.await("a try that failed, and is not the last", s.trying.Load)
	if is, err := c.Waiting(s.origin.number); err != nil || !slices.Equal(is, other) {
		t.Errorf("in the slot is %v, %v", is, err)
	}
	r.must(c.Clear(s.origin.number))
	r.await("the end of all, with no other call", func() bool { return describe(t, nil) == was })
	if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost || !strings.Contains(err.Error(), "the test says so") {
		t.Errorf("it is lost: %v", err)
	}
	r.must(s.Release(t.Context()))
}

// Where the disk of a cache file cannot be known, no volume of which it may be is taken.
func TestCarrierUnknown(t *testing.T) {
	r, carrier := pair(t, plain)
	s := r.take().(*target)
	p := New(host)
	if err := p.Check(t.Context(), carrier.Volume); problem.CodeOf(err) != problem.Busy || !strings.Contains(err.Error(), "lies on it") {
		t.Errorf("got %v, want busy", err)
	}
	node := filepath.Join("/dev", below(s.store.device)[0])
	r.must(os.Rename(node, node+"-away"))
	defer func() { _ = os.Rename(node+"-away", node) }()
	if err := p.Check(t.Context(), carrier.Volume); problem.CodeOf(err) != problem.Busy || !strings.Contains(err.Error(), node) {
		t.Errorf("without its node: got %v, want busy", err)
	}
	r.must(os.Rename(node+"-away", node))
	r.must(s.Release(t.Context()))
	r.must(p.Check(t.Context(), carrier.Volume))
}

// What could be made in part, and not be removed since somebody had it open, is removed
// later.
func TestStoreInUse(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	room, _ := newRoom(r)
	room.device.UUID += "-before" // so that there is an error, with our device over it
	was := describe(t, nil)
	for try := range 100 {
		all, err := c.List()
		r.must(err)
		var next uint32 // is the number of the next device
		for slices.ContainsFunc(all, func(d dm.Device) bool { return d.Number.Minor == next }) {
			next++
		}
		quit, opened := make(chan bool), make(chan *os.File, 1)
		go func() {
			for {
				select {
				case <-quit:
					opened <- nil
					return
				default:
				}
				if f, err := os.Open(dm.Device{Number: dm.Number{Minor: next}}.Node()); err == nil {
					opened <- f
					return
				}
			}
		}()
		_, err = New(host).PrepareRoomed(t.Context(), fmt.Sprint("in-use", try), []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}}, []Room{room}, Name)
		if problem.CodeOf(err) == problem.Uncatalogued {
			t.Fatal(err)
		}
		close(quit)
		f := <-opened
		if f != nil {
			f.Close()
		}
		if !errors.Is(err, dm.ErrInUse) {
			continue // it was removed before the other could open it
		}
		r.await("the end of all, with no other call", func() bool { return describe(t, nil) == was })
		return
	}
	t.Fatal("nobody could open the device: this test proves nothing")
}
