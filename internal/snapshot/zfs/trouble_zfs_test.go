//go:build zfs

package zfs

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/zfs"
	"stillpoint/internal/tool"
)

// A pool whose disk does not answer is given up, in Commit, too, and nothing waits for it
// again; when it answers, what came late is removed, though nobody asks a second time.
func TestDiskHangs(t *testing.T) {
	disk := scratch.New(t, "ext4", scratch.GiB)
	base := filepath.Join(disk.Dir, "pool")
	must(t, os.Mkdir(base, 0o700))
	p := newPoolIn(t, base)
	p.create("a")
	pending := prepare(t, of(p.volume("."), "."))
	t.Cleanup(func() { _, _ = tool.Run(context.Background(), "fsfreeze", "-u", disk.Dir) })
	scratch.Run(t, "fsfreeze", "-f", disk.Dir)
	took := func(what string, least, most time.Duration, call func()) {
		began := time.Now()
		call()
		if d := time.Since(began); d < least || d > most {
			t.Errorf("%s took %s", what, d)
		}
	}
	var err error
	took("commit", callLimit, 2*callLimit, func() { _, err = pending.Commit(t.Context()) })
	hasCode(t, "commit", err, problem.ZFSStuck)
	took("abort", 0, callLimit/4, func() { err = pending.Abort(t.Context()) })
	hasCode(t, "abort", err, problem.ZFSStuck)
	by := pending.(*set).p
	took("check", 0, callLimit/4, func() { err = by.Check(t.Context(), p.volume(".")) })
	hasCode(t, "check", err, problem.ZFSStuck)

	scratch.Run(t, "fsfreeze", "-u", disk.Dir)
	p.emptied()
	must(t, by.zfs.refuse())
	must(t, pending.Abort(t.Context()))
}

// emptied waits until there is neither a snapshot nor a record.
func (p testPool) emptied() {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); p.snapshots()+recordNames(p.t) != ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("left: %s", p.snapshots()+recordNames(p.t))
		}
	}
}

// So is one whose disk stops answering when the snapshots are there.
func TestDiskHangsInRelease(t *testing.T) {
	disk := scratch.New(t, "ext4", scratch.GiB)
	base := filepath.Join(disk.Dir, "pool")
	must(t, os.Mkdir(base, 0o700))
	p := newPoolIn(t, base)
	snaps, err := prepare(t, of(p.volume("."), ".")).Commit(t.Context())
	must(t, err)
	must(t, snaps[0].Err())
	t.Cleanup(func() { _, _ = tool.Run(context.Background(), "fsfreeze", "-u", disk.Dir) })
	scratch.Run(t, "fsfreeze", "-f", disk.Dir)
	hasCode(t, "release", snaps[0].Release(t.Context()), problem.ZFSStuck)
	began := time.Now()
	err = snaps[0].Release(t.Context())
	hasCode(t, "release again", err, problem.ZFSStuck)
	if d := time.Since(began); d > callLimit/4 {
		t.Errorf("it took %s", d)
	}
	scratch.Run(t, "fsfreeze", "-u", disk.Dir)
	p.emptied()
	must(t, snaps[0].Release(t.Context()))
}

// A snapshot that cannot be released, for a file of it is open, goes when that is closed,
// and those of other datasets do not wait for it.
func TestReleaseGoesOn(t *testing.T) {
	p := newPool(t)
	p.create("a", "a/b", "a/c")
	s := take(t, of(p.volume("a"), "."))[0]
	must(t, s.Err())
	f, err := os.Open(filepath.Join(s.Root(), "in"))
	must(t, err)
	defer f.Close()
	hasCode(t, "release", s.Release(t.Context()), problem.ReleaseFailed)
	if left := p.snapshots(); left != p.name+"/a@"+prefix+s.(*target).set.id {
		t.Errorf("left: %s", left)
	}
	must(t, f.Close())
	p.emptied()
}

// The instant is when the transaction group was closed, and not when it was written.
func TestTaken(t *testing.T) {
	p := newPool(t)
	pending := prepare(t, of(p.volume("."), "."))
	before := time.Now()
	snaps, err := pending.Commit(t.Context())
	must(t, err)
	after := time.Now()
	taken := snaps[0].Parts()[0].Taken
	if taken.Before(before) || taken.After(after) {
		t.Errorf("taken at %s, committed from %s to %s", taken, before, after)
	}
	at, err := zfs.Closed(p.name, pending.(*set).members[p.name].stats.CreateTXG)
	if d := at.Sub(taken).Abs(); err != nil || d > 100*time.Millisecond {
		t.Errorf("closed at %s, %v; taken at %s", at, err, taken)
	}
	t.Logf("closed %s before the call came back", after.Sub(taken))
	must(t, snaps[0].Release(t.Context()))
}

// In a pool with little room a snapshot could cost programs what they need to go on.
func TestNoRoom(t *testing.T) {
	p := newPool(t)
	free, err := strconv.ParseUint(strings.TrimSpace(p.zfs("get", "-H", "-p", "-o", "value", "available", p.name)), 10, 64)
	must(t, err)
	p.zfs("create", "-o", "reservation="+strconv.FormatUint(free-(10<<20), 10), p.name+"/reserved")
	v := p.volume(".")
	hasCode(t, "check", provider().Check(t.Context(), v), problem.SnapshotFull)
	sets++
	_, err = provider().Prepare(t.Context(), "full"+strconv.Itoa(sets), []snapshot.Target{of(v, ".")})
	hasCode(t, "prepare", err, problem.SnapshotFull)
	p.zfs("set", "reservation=none", p.name+"/reserved")
	must(t, provider().Check(t.Context(), v))
}
