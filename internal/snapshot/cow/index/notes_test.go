package index

import (
	"testing"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
)

func handle(t *testing.T, number, generation byte) inode.Handle {
	t.Helper()
	h, ok := inode.New(1, []byte{number, 0, 0, 0, generation, 0, 0, 0})
	if !ok {
		t.Fatal("no handle")
	}
	return h
}

// Between the look at a file and its entry in the table it can change: the note
// is kept until no look is under way.
func TestNoteBeforeEntry(t *testing.T) {
	table, n := newTable(), newNotes()
	h, other := handle(t, 7, 1), handle(t, 8, 1)
	n.note(table, &fanotify.Change{Mask: fanotify.Attributes, Target: h})
	n.note(table, &fanotify.Change{Mask: fanotify.Attributes, Target: other})
	table.put(&Inode{Number: 7, Handle: h})
	table.put(&Inode{Number: 8, Handle: handle(t, 8, 2)})
	n.prune(table)
	if _, ok := n.inodes[h]; !ok || n.len() != 1 {
		t.Errorf("%d notes: %v", n.len(), n.inodes)
	}
}

// Names are noted for the directories that are there, openings apart from the
// rest, and what was taken can be given back.
func TestNotes(t *testing.T) {
	table, n := newTable(), newNotes()
	a, b, x := handle(t, 1, 1), handle(t, 2, 1), handle(t, 3, 1)
	table.put(&Inode{Number: 1, Handle: a})
	table.put(&Inode{Number: 2, Handle: handle(t, 2, 9)})
	for range 2 { // the second time changes nothing
		n.note(table, &fanotify.Change{Mask: fanotify.Renamed, Dir: a, Name: []byte("old"), NewDir: b, NewName: []byte("new"), Target: x})
		n.note(table, &fanotify.Change{Mask: fanotify.Opened, Dir: a, Name: []byte("old"), Target: x})
		n.note(table, &fanotify.Change{Mask: fanotify.Opened | fanotify.OfDirectory, Dir: a, Target: a})
		n.note(table, &fanotify.Change{Mask: fanotify.Opened | fanotify.Modified, Dir: a, Name: []byte("y"), Target: b})
	}
	if n.count != 1 || len(n.names) != 1 || len(n.names[1]) != 1 || len(n.inodes) != 3 || len(n.opened) != 2 {
		t.Errorf("%+v", n)
	}
	m := newNotes()
	m.note(table, &fanotify.Change{Mask: fanotify.Created, Dir: a, Name: []byte("old"), Target: x})
	m.note(table, &fanotify.Change{Mask: fanotify.Created, Dir: a, Name: []byte("third"), Target: x})
	m.join(n)
	if m.count != 2 || len(m.names[1]) != 2 || len(m.inodes) != 3 || len(m.opened) != 2 {
		t.Errorf("%+v", m)
	}
}
