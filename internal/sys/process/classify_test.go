package process

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// The files behind the descriptors of the cases below: 3 is the event's file,
// 4 the same opened for writing, 5 another one, and 9 cannot be looked at.
type fileTable struct{}

func (fileTable) File(fd int) (File, error) {
	switch fd {
	case 3, 4:
		return File{Dev: 1, Ino: 10}, nil
	case 5:
		return File{Dev: 1, Ino: 11}, nil
	}
	return File{}, errors.New("gone")
}

func (fileTable) Flags(fd int) (int, error) {
	switch fd {
	case 3:
		return unix.O_RDONLY, nil
	case 4, 5:
		return unix.O_RDWR | unix.O_APPEND, nil
	}
	return 0, errors.New("gone")
}

func TestClassify(t *testing.T) {
	const sp, pc = 0x7ffc12345678, 0x401000
	page := pageSize()
	at := func(offset, count uint64) Question { return Question{Offset: offset, Count: count, Dev: 1, Ino: 10} }
	one := at(page, page)
	open := Question{Open: true, Dev: 1, Ino: 10}
	call := func(number int64, args ...uint64) Call {
		c := Call{Number: number, SP: sp, PC: pc}
		copy(c.Args[:], args)
		return c
	}
	minus := ^uint64(0)
	for _, c := range []struct {
		what string
		call Call
		q    Question
		want Doing
	}{
		{"read", call(sysRead, 3, 0, 100), one, Reads},
		{"read over two pages", call(sysRead, 3, 0, page), at(page, 2*page), Reads},
		{"read of less than the event", call(sysRead, 3, 0, 100), at(page, 3*page), Unknown},
		{"read of another file", call(sysRead, 5, 0, 100), one, Unknown},
		{"read of who knows", call(sysRead, 9, 0, 100), one, Unknown},
		{"pread", call(sysPread64, 3, 0, 100, page+1), one, Reads},
		{"pread elsewhere", call(sysPread64, 3, 0, 100, 0), one, Unknown},
		{"pread of more", call(sysPread64, 3, 0, page, page+1), one, Unknown},
		{"readv", call(sysReadv, 4, 0, 2), one, Reads},
		{"preadv", call(sysPreadv, 3, 0, 2, page+7), one, Reads},
		{"preadv elsewhere", call(sysPreadv, 3, 0, 2, 5*page), one, Unknown},
		{"preadv2 at the position", call(sysPreadv2, 3, 0, 2, minus, minus), one, Reads},
		{"execve", call(sysExecve), one, Reads},
		{"write", call(sysWrite, 4, 0, 100), one, Writes},
		{"pwritev2", call(sysPwritev2, 4, 0, 1, page), one, Writes},
		{"io_submit", call(sysIoSubmit), one, Writes},
		{"fallocate", call(sysFallocate, 4, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, page), one, Writes},
		{"collapse", call(sysFallocate, 4, unix.FALLOC_FL_COLLAPSE_RANGE, page, page), one, WritesToEnd},
		{"insert", call(sysFallocate, 4, unix.FALLOC_FL_INSERT_RANGE, page, page), one, WritesToEnd},
		{"truncate", call(sysTruncate), one, WritesToEnd},
		{"ftruncate", call(sysFtruncate, 4, page), one, WritesToEnd},
		{"remove pages", call(sysMadvise, 0, 0, unix.MADV_REMOVE), one, Writes},
		{"other advice", call(sysMadvise, 0, 0, unix.MADV_WILLNEED), one, Unknown},
		{"sendfile from it", call(sysSendfile, 5, 3), one, Reads},
		{"sendfile to it", call(sysSendfile, 4, 5), one, Writes},
		{"sendfile within it", call(sysSendfile, 4, 3), one, Writes},
		{"sendfile who knows where", call(sysSendfile, 9, 3), one, Writes},
		{"copy from it", call(sysCopyFileRange, 3, 0, 5), one, Reads},
		{"copy to it", call(sysCopyFileRange, 5, 0, 4), one, Writes},
		{"splice to it", call(sysSplice, 5, 0, 4), one, Writes},
		{"clone from it", call(sysIoctl, 5, fiClone, 3), one, Reads},
		{"clone to it", call(sysIoctl, 4, fiClone, 5), one, WritesToEnd},
		{"clone within it", call(sysIoctl, 4, fiClone, 3), one, WritesToEnd},
		{"dedupe", call(sysIoctl, 3, fiDedupeRange), one, Reads},
		{"dedupe of another", call(sysIoctl, 5, fiDedupeRange), one, Unknown},
		{"any ioctl", call(sysIoctl, 4, 0x4711), one, WritesToEnd},
		{"map private", call(sysMmap, 0, 100, 3, unix.MAP_PRIVATE, 4, page), one, MapsPrivate},
		{"map shared, read only", call(sysMmap, 0, page, 1, unix.MAP_SHARED, 3, page), one, MapsReadOnly},
		{"map shared", call(sysMmap, 0, page, 1, unix.MAP_SHARED, 4, page), one, MapsShared},
		{"map validated", call(sysMmap, 0, page, 1, unix.MAP_SHARED_VALIDATE, 4, page), one, MapsShared},
		{"map of another range", call(sysMmap, 0, page, 1, unix.MAP_PRIVATE, 4, 0), one, Unknown},
		{"map of another file", call(sysMmap, 0, page, 1, unix.MAP_PRIVATE, 5, page), one, Unknown},
		{"io_uring_enter", call(unix.SYS_IO_URING_ENTER), one, Unknown},
		{"an open that accesses", call(sysOpenat, 0, 0, 0), one, Unknown},

		{"openat", call(sysOpenat, 0, 0, unix.O_RDWR), open, Opens},
		{"openat truncating", call(sysOpenat, 0, 0, unix.O_RDWR|unix.O_TRUNC), open, Truncates},
		{"open", call(sysOpen, 0, unix.O_RDWR), open, Opens},
		{"open truncating", call(sysOpen, 0, unix.O_TRUNC), open, Truncates},
		{"creat", call(sysCreat), open, Truncates},
		{"openat2", call(unix.SYS_OPENAT2), open, Unknown},
		{"by handle", call(sysOpenByHandleAt, 0, 0, unix.O_RDWR), open, Opens},
		{"by handle truncating", call(sysOpenByHandleAt, 0, 0, unix.O_TRUNC), open, Truncates},
		{"exec", call(sysExecveat), open, Opens},
		{"a read that opens", call(sysRead, 3, 0, 100), open, Unknown},

		{"outside of a call", Call{Number: -1, SP: sp, PC: pc}, one, Unknown},
		{"io_uring worker", Call{Number: sysRead, Args: [6]uint64{3, 0, 100}}, one, Unknown},
		{"no stack", Call{Number: sysRead, Args: [6]uint64{3, 0, 100}, PC: pc}, one, Unknown},
		{"32-bit", Call{Number: sysRead, Args: [6]uint64{3, 0, 100}, SP: 0xffc0_0000, PC: pc}, one, Unknown},
		{"x32", call(0x4000_0000|sysRead, 3, 0, 100), one, Unknown},
	} {
		if c.call.Number < -1 {
			continue // this machine has no such call
		}
		if got := Classify(c.call, c.q, fileTable{}); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestParseCall(t *testing.T) {
	for text, want := range map[string]Call{
		"0 0x3 0x7ffd 0x64 0x0 0x0 0x1f 0x7ffdaf91d280 0x7f451a6c4aec\n": {Number: 0, Args: [6]uint64{3, 0x7ffd, 0x64, 0, 0, 0x1f}, SP: 0x7ffdaf91d280, PC: 0x7f451a6c4aec},
		"-1 0x7ffdaf91d280 0x7f451a6c4aec\n":                             {Number: -1, SP: 0x7ffdaf91d280, PC: 0x7f451a6c4aec},
	} {
		if got, err := parseCall([]byte(text)); got != want || err != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if c, err := parseCall([]byte("running\n")); err != ErrRunning || c.Number != -1 {
		t.Errorf("running: %+v, %v", c, err)
	}
	if c, err := parseCall(nil); err == nil || c.Number != -1 {
		t.Errorf("nothing: %+v, %v", c, err)
	}
}

func TestParseMapping(t *testing.T) {
	for text, want := range map[string]Mapping{
		"7f00-7f10 rw-s 00001000 fe:01 1234                       /a b (deleted)": {
			Start: 0x7f00, End: 0x7f10, Readable: true, Writable: true, Shared: true, Offset: 0x1000, Dev: unix.Mkdev(0xfe, 1), Ino: 1234, Path: []byte("/a b (deleted)")},
		"7f00-7f10 r--p 00000000 00:00 0 ": {Start: 0x7f00, End: 0x7f10, Readable: true},
	} {
		got, ok := parseMapping([]byte(text))
		if !ok || string(got.Path) != string(want.Path) {
			t.Errorf("%q: %+v", text, got)
		}
		got.Path, want.Path = nil, nil
		if got.Start != want.Start || got.End != want.End || got.Readable != want.Readable || got.Writable != want.Writable ||
			got.Shared != want.Shared || got.Offset != want.Offset || got.Dev != want.Dev || got.Ino != want.Ino {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if _, ok := parseMapping([]byte("nonsense")); ok {
		t.Error("nonsense is a mapping")
	}
}
