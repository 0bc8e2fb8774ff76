package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Types of records (linux/btrfs_tree.h).
const (
	typeInode       = 1   // BTRFS_INODE_ITEM_KEY
	typeInodeRef    = 12  // BTRFS_INODE_REF_KEY
	typeDirIndex    = 96  // BTRFS_DIR_INDEX_KEY
	typeRootItem    = 132 // BTRFS_ROOT_ITEM_KEY
	typeRootBackref = 144 // BTRFS_ROOT_BACKREF_KEY
)

// rootTree is the tree of all trees; 0 would be the tree of the descriptor.
const rootTree = 1

// An Entry is a subvolume in the list of all: what it is and where it hangs.
type Entry struct {
	ID       uint64
	UUID     UUID
	Parent   UUID // of the subvolume it is a snapshot of; zero for none
	ReadOnly bool
	Within   uint64 // id of the subvolume that holds its name
	Dir      uint64 // inode of the directory there
	Index    uint64 // place of the name in that directory, for Stub
	Name     string
}

// List returns all subvolumes that have a name, in the order of their ids. The
// top level is not among them.
func List(f *os.File) ([]Entry, error) {
	var list []Entry
	at := map[uint64]int{}
	err := search(f, span{tree: rootTree, firstObject: firstID, lastObject: lastID, firstType: typeRootItem, lastType: typeRootBackref},
		func(r record) {
			if r.object < firstID || r.object > lastID {
				return
			}
			i, ok := at[r.object]
			if !ok {
				i = len(list)
				at[r.object] = i
				list = append(list, Entry{ID: r.object})
			}
			switch r.kind {
			case typeRootItem:
				list[i].rootItem(r.data)
			case typeRootBackref:
				list[i].backref(r.offset, r.data)
			}
		})
	if err != nil {
		return nil, err
	}
	named := list[:0]
	for _, e := range list {
		if e.Name != "" { // deleted ones keep their record until they are cleaned up
			named = append(named, e)
		}
	}
	return named, nil
}

// rootItem reads struct btrfs_root_item, which is packed.
func (e *Entry) rootItem(b []byte) {
	const flags, uuid, parent = 208, 247, 263
	if len(b) < parent+16 {
		return // from before Linux 3.6, without UUIDs
	}
	e.ReadOnly = binary.LittleEndian.Uint64(b[flags:])&rootReadOnly != 0
	copy(e.UUID[:], b[uuid:])
	copy(e.Parent[:], b[parent:])
}

// backref reads struct btrfs_root_ref; the offset of its key is the id of the
// subvolume that holds the name.
func (e *Entry) backref(within uint64, b []byte) {
	if len(b) < 18 {
		return
	}
	e.Within = within
	e.Dir = binary.LittleEndian.Uint64(b)
	e.Index = binary.LittleEndian.Uint64(b[8:])
	e.Name = string(b[18:])
}

// A Stub is the name of a subvolume in a directory of another one. A snapshot
// has it, too, but in a snapshot it leads to an empty directory, and goes on
// doing so when the snapshot is made writable, or a snapshot of it is made.
type Stub struct {
	ID    uint64 // of the subvolume that hung there
	Dir   uint64 // inode of the directory
	Name  string
	added uint64 // transaction
}

// StubInode is the inode number of the empty directory that a stub leads to
// (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID).
const StubInode = 2

// StubAt returns the name at a place of a directory in the subvolume tree, if
// it is that of a subvolume.
func StubAt(f *os.File, tree, dir, index uint64) (stub Stub, ok bool, err error) {
	err = search(f, span{tree: tree, firstObject: dir, lastObject: dir, firstType: typeDirIndex, lastType: typeDirIndex,
		firstOffset: index, lastOffset: index}, func(r record) {
		if s, is := stubOf(r); is {
			stub, ok = s, true
		}
	})
	return stub, ok, err
}

// StubsSince returns the names of subvolumes that were added to the subvolume
// tree in or after a transaction. It reads only the parts of the tree that were
// written since.
func StubsSince(f *os.File, tree, transaction uint64) ([]Stub, error) {
	var stubs []Stub
	err := search(f, span{tree: tree, firstObject: firstID, lastObject: lastID, firstType: 0, lastType: 255, lastOffset: 1<<64 - 1, since: transaction},
		func(r record) {
			if s, ok := stubOf(r); ok && s.added >= transaction {
				stubs = append(stubs, s)
			}
		})
	return stubs, err
}

// stubOf reads struct btrfs_dir_item: where it leads, then the name.
func stubOf(r record) (Stub, bool) {
	const head = 30
	if r.kind != typeDirIndex || len(r.data) < head || r.data[8] != typeRootItem {
		return Stub{}, false
	}
	length := int(binary.LittleEndian.Uint16(r.data[27:]))
	if len(r.data) < head+length {
		return Stub{}, false
	}
	return Stub{
		ID: binary.LittleEndian.Uint64(r.data), Dir: r.object,
		Name: string(r.data[head : head+length]), added: binary.LittleEndian.Uint64(r.data[17:]),
	}, true
}

// Path returns the path of a directory from the root of the subvolume tree it
// lies in, "" for the root itself. It may be longer than what a system call
// takes; one of more than 2,000 directories fails with ENAMETOOLONG.
func Path(f *os.File, tree, inode uint64) (string, error) {
	p, err := lookup(f, tree, inode)
	if errors.Is(err, unix.ENAMETOOLONG) {
		return climb(f, tree, inode)
	}
	return p, err
}

// climb is Path name by name.
func climb(f *os.File, tree, inode uint64) (string, error) {
	var names []string
	for range 2000 { // each takes a while, and anybody can make many
		if inode == firstID { // the root of every tree
			slices.Reverse(names)
			return strings.Join(names, "/"), nil
		}
		outer, name, err := Parent(f, tree, inode)
		if err != nil {
			return "", err
		}
		inode, names = outer, append(names, name)
	}
	return "", failed("BTRFS_IOC_TREE_SEARCH_V2", "", unix.ENAMETOOLONG)
}

// Parent returns the directory that holds the name of a directory, and the
// name. It reads its struct btrfs_inode_ref, of which it has only one; the
// offset of the key is the outer directory. For a while after a rename, it may
// still be the old name.
func Parent(f *os.File, tree, inode uint64) (outer uint64, name string, err error) {
	const head = 10
	err = search(f, span{tree: tree, firstObject: inode, lastObject: inode, firstType: typeInodeRef, lastType: typeInodeRef, lastOffset: 1<<64 - 1},
		func(r record) {
			if r.kind == typeInodeRef && len(r.data) > head {
				length := int(binary.LittleEndian.Uint16(r.data[8:]))
				outer, name = r.offset, string(r.data[head:min(head+length, len(r.data))])
			}
		})
	if err == nil && name == "" {
		err = failed("BTRFS_IOC_TREE_SEARCH_V2", "", unix.ENOENT)
	}
	return outer, name, err
}

// lookup is Path by the kernel, which has room for 4,079 bytes.
func lookup(f *os.File, tree, inode uint64) (string, error) {
	var a struct {
		tree, inode uint64
		name        [4080]byte
	}
	a.tree, a.inode = tree, inode
	if err := ioctl(f, "BTRFS_IOC_INO_LOOKUP", "", iocInoLookup, unsafe.Pointer(&a)); err != nil {
		return "", err
	}
	name, _, _ := bytes.Cut(a.name[:], []byte{0})
	return strings.TrimSuffix(string(name), "/"), nil
}

// A span of records: all keys (object, type, offset) from the first to the
// last in this order, so types between are not all between.
type span struct {
	tree                    uint64
	firstObject, lastObject uint64
	firstType, lastType     uint8
	firstOffset, lastOffset uint64
	since                   uint64 // transaction
}

type record struct {
	object, offset uint64
	kind           uint8
	data           []byte // valid during the call only
}

// searchArgs is struct btrfs_ioctl_search_args_v2 with its buffer.
type searchArgs struct {
	tree                             uint64
	minObject, maxObject             uint64
	minOffset, maxOffset             uint64
	minTransaction, maxTransaction   uint64
	minType, maxType, items, unused0 uint32
	unused                           [4]uint64
	size                             uint64
	buf                              [64 << 10]byte // more than the largest record
}

// search calls each for all records of a span.
func search(f *os.File, s span, each func(record)) error {
	return searchWhile(f, s, each, func() bool { return true })
}

// searchWhile is search that ends when more, which is asked after some hundred
// records, returns false.
func searchWhile(f *os.File, s span, each func(record), more func() bool) error {
	a := new(searchArgs)
	next := s
	for {
		*a = searchArgs{
			tree: s.tree, minObject: next.firstObject, maxObject: s.lastObject,
			minType: uint32(next.firstType), maxType: uint32(s.lastType),
			minOffset: next.firstOffset, maxOffset: s.lastOffset,
			minTransaction: s.since, maxTransaction: 1<<64 - 1, items: 1<<32 - 1, size: uint64(len(a.buf)),
		}
		if err := ioctl(f, "BTRFS_IOC_TREE_SEARCH_V2", "", iocTreeSearch, unsafe.Pointer(a)); err != nil {
			return err
		}
		if a.items == 0 {
			return nil
		}
		last, ok := parse(a.buf[:], int(a.items), each)
		if !ok {
			return failed("BTRFS_IOC_TREE_SEARCH_V2", "", unix.EBADMSG)
		}
		if next, ok = after(s, last); !ok || !more() {
			return nil
		}
	}
}

// parse reads records, each with its struct btrfs_ioctl_search_header, and
// returns the last.
func parse(b []byte, n int, each func(record)) (last record, ok bool) {
	const head = 32
	for range n {
		if len(b) < head {
			return last, false
		}
		length := int(binary.NativeEndian.Uint32(b[28:]))
		if length > len(b)-head {
			return last, false
		}
		last = record{
			object: binary.NativeEndian.Uint64(b[8:]),
			offset: binary.NativeEndian.Uint64(b[16:]),
			kind:   uint8(binary.NativeEndian.Uint32(b[24:])),
			data:   b[head : head+length],
		}
		each(last)
		b = b[head+length:]
	}
	return last, true
}

// after is the rest of a span behind a key, or false where there is none.
func after(s span, r record) (span, bool) {
	s.firstObject, s.firstType, s.firstOffset = r.object, r.kind, r.offset+1
	if s.firstOffset != 0 {
		return s, true
	}
	s.firstType++
	if s.firstType != 0 {
		return s, true
	}
	s.firstObject++
	return s, s.firstObject != 0 && s.firstObject <= s.lastObject
}
