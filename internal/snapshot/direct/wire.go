package direct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
)

// Both ends are always of the same version, which the agent's paths say.
//
// A request is a length, an operation and what that needs. An answer is a
// length, a word that says whether it is an error, and what was asked for.
const (
	opAttach byte = iota + 1 // answered by one byte that carries the descriptors of the mount and the flags
	opTop
	opLookup
	opList
	opDescribe
	opRead
	opNext
	opVerify
)

const (
	done   byte = iota
	failed      // errno, code, text
	lost        // the same, and the snapshot is lost
)

// Limits of messages.
const (
	most        = 1 << 20 // of content in one answer
	mostRequest = 1 << 20 // bytes of a request
	mostAnswer  = 1 << 30 // and of an answer, which can be the names of a large directory
	mostFull    = 512     // names of a directory that are described at once
)

// errMessage is of an end that does not keep to the protocol.
var errMessage = errors.New("a message that makes no sense")

// A message is what is taken apart, from its beginning on. Once something was
// missing, all is zero.
type message struct {
	b   []byte
	err error
}

func (m *message) number() uint64 {
	n, size := binary.Uvarint(m.b)
	if size <= 0 {
		m.b, m.err = nil, errMessage
		return 0
	}
	m.b = m.b[size:]
	return n
}

func (m *message) text() string { return string(m.bytes()) }

func (m *message) bytes() []byte {
	n := m.number()
	if n > uint64(len(m.b)) {
		m.b, m.err = nil, errMessage
		return nil
	}
	var b []byte
	b, m.b = m.b[:n], m.b[n:]
	return b
}

// count is a number of things each of which takes at least a byte.
func (m *message) count() int {
	n := m.number()
	if n > uint64(len(m.b)) {
		m.b, m.err = nil, errMessage
		return 0
	}
	return int(n)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	return appendNumbers(b, uint64(t.Unix()), uint64(t.Nanosecond()))
}

func (m *message) time() time.Time {
	sec := int64(m.number())
	return time.Unix(sec, int64(m.number()))
}

// timespec is how the kernel shows a time.
func timespec(t time.Time) syscall.Timespec {
	return syscall.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func appendItem(b []byte, i *snapshot.Item) []byte {
	f := &i.Info
	b = appendText(b, i.Name)
	b = appendNumbers(b, uint64(f.Kind), f.Inode, uint64(f.Mode), uint64(f.UID), uint64(f.GID), f.Links, uint64(f.Size), uint64(f.Blocks), f.Device, f.Node, uint64(i.Flags))
	b = appendTime(appendTime(b, f.Modified), f.Changed)
	b = appendText(appendText(b, i.Target), i.Handle)
	b = appendNumbers(b, uint64(len(i.XAttrs)))
	for _, x := range i.XAttrs {
		b = appendText(appendText(b, x.Name), x.Value)
	}
	return b
}

func (m *message) item() (i snapshot.Item) {
	f := &i.Info
	i.Name = m.text()
	f.Kind, f.Inode = file.Kind(m.number()), m.number()
	f.Mode, f.UID, f.GID, f.Links = uint32(m.number()), uint32(m.number()), uint32(m.number()), m.number()
	f.Size, f.Blocks, f.Device, f.Node = int64(m.number()), int64(m.number()), m.number(), m.number()
	i.Flags = uint32(m.number())
	f.Modified, f.Changed = m.time(), m.time()
	i.Target, i.Handle = m.text(), m.text()
	for range m.count() {
		i.XAttrs = append(i.XAttrs, snapshot.XAttr{Name: m.text(), Value: m.text()})
	}
	return i
}

func appendItems(b []byte, items []snapshot.Item) []byte {
	b = appendNumbers(b, uint64(len(items)))
	for i := range items {
		b = appendItem(b, &items[i])
	}
	return b
}

func (m *message) items() []snapshot.Item {
	all := make([]snapshot.Item, m.count())
	for i := range all {
		if all[i] = m.item(); m.err != nil {
			return nil
		}
	}
	return all
}

func appendListing(b []byte, l snapshot.Listing) []byte {
	b = appendItems(b, l.Items)
	b = appendNumbers(b, uint64(len(l.Names)))
	for _, n := range l.Names {
		b = appendNumbers(appendText(b, n.Name), uint64(n.Kind), n.Inode)
	}
	return b
}

func (m *message) listing() (l snapshot.Listing) {
	l.Items = m.items()
	for range m.count() {
		l.Names = append(l.Names, snapshot.Name{Name: m.text(), Kind: file.Kind(m.number()), Inode: m.number()})
	}
	return l
}

// appendError keeps of an error what a reader needs: the errno, the code, and
// whether the snapshot is lost with it.
func appendError(b []byte, err error) []byte {
	kind := failed
	if problem.Is(err, problem.SnapshotLost) {
		kind = lost
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	b = appendNumbers(append(b, kind), uint64(errno))
	return appendText(appendText(b, string(problem.CodeOf(err))), err.Error())
}

// failure is the error again.
func (m *message) failure(kind byte) error {
	errno, code, text := syscall.Errno(m.number()), problem.Code(m.text()), m.text()
	if m.err != nil {
		return m.err
	}
	var err error = &told{text, errno}
	if code != problem.Uncatalogued {
		err = problem.New(code, "", err)
	}
	if kind == lost && !problem.Is(err, problem.SnapshotLost) {
		err = problem.New(problem.SnapshotLost, "", err)
	}
	return err
}

// A told error was one in another process.
type told struct {
	text  string
	errno syscall.Errno
}

func (t *told) Error() string { return t.text }

// Unwrap returns the errno, if there was one.
func (t *told) Unwrap() error {
	if t.errno == 0 {
		return nil
	}
	return t.errno
}

// send sends a message in one piece. b begins with room for the length.
func send(w io.Writer, b []byte) error {
	binary.NativeEndian.PutUint32(b, uint32(len(b)-lengthSize))
	_, err := w.Write(b)
	return err
}

const lengthSize = 4

// receive receives a message into buf, or more if it has to.
func receive(r io.Reader, buf []byte, most int) ([]byte, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.NativeEndian.Uint32(length[:]))
	if n == 0 || n > most {
		return nil, fmt.Errorf("of %d bytes: %w", n, errMessage)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}
