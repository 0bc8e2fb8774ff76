package btrfs

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
)

// What a nested subvolume fails by is a gap, and what a selected one fails by
// or what tells of the file system is a failure.
func TestSettle(t *testing.T) {
	for _, test := range []struct {
		err error
		gap problem.Code // "" for a failure
	}{
		{syscall.ENOENT, problem.VolumeLost},
		{syscall.ELOOP, problem.SnapshotFailed},
		{syscall.ENAMETOOLONG, problem.SnapshotFailed},
		{syscall.ENOSPC, problem.SnapshotFull},
		{syscall.EIO, ""},
		{syscall.EROFS, ""},
		{context.Canceled, ""},
		{context.DeadlineExceeded, ""},
	} {
		err := &os.PathError{Op: "snapshot", Path: "p", Err: test.err}
		m := &member{}
		got := m.settle(err)
		if (got == nil) != (test.gap != "") || (m.gap != nil) != (test.gap != "") || m.gap != nil && m.gap.Code != test.gap {
			t.Errorf("%v: error %v and gap %v", test.err, got, m.gap)
		}
		m = &member{required: true}
		if m.settle(err) == nil || m.gap != nil {
			t.Errorf("%v of a required subvolume is no failure", test.err)
		}
	}
}

// A node that leads to another subvolume than its own is not taken.
func TestOpenSourceOfAnother(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	v := d.mounted("@")
	f, err := open(v)
	must(t, err)
	defer f.close()
	const orphan = 4711
	f.tree = newTree([]btrfs.Entry{{ID: orphan, Within: 4710, Name: "orphan"}}, []string{"orphan"})
	m := &member{subvolume: subvolume{f.uuid, orphan}, fs: f, required: true}
	defer m.close()
	hasCode(t, "open", m.openSource(), problem.VolumeLost)
}

// A deleted subvolume is not even asked to be snapshotted.
func TestTakeDeleted(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/a")
	s := prepare(t, of(d.mounted("@"), ".", "a")).(*set)
	d.remove("@/a")
	for _, m := range s.members {
		if fmt.Sprint(m.id) != "257" {
			continue
		}
		_ = m.place.Close() // the ioctl would fail by that
		err := m.take()
		m.place = nil
		hasCode(t, "take", coded("a", err), problem.VolumeLost)
		return
	}
	t.Error("no such member")
}
