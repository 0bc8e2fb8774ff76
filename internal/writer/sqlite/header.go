package sqlite

import (
	"encoding/binary"
	"fmt"
	"strings"

	"stillpoint/internal/sys/file"
)

// A header is what the first page of a database begins with
// (sqlite.org/fileformat2.html, section 1.3).
type header struct {
	wal     bool   // the changes go to a write-ahead log first
	version string // of the library that wrote last, empty in very old files
}

const (
	headerSize = 100
	magic      = "SQLite format 3\x00"
	smallest   = 512 // page, and so file
)

// besides are the ends of the names of what lies beside a database while
// somebody uses it.
var besides = [...]string{"-wal", "-journal"}

// beside returns the name of the database that a file lies beside.
func beside(name string) (database string, ok bool) {
	for _, end := range besides {
		if of, ok := strings.CutSuffix(name, end); ok && of != "" {
			return of, true
		}
	}
	return "", false
}

// read reads the header of a file.
func read(dir int, name string, used bool) (h header, key inode, ok bool, err error) {
	fd, err := file.Open(dir, name, file.Read|file.Final|file.Prompt)
	if err != nil {
		return h, key, false, err
	}
	defer file.Close(fd)
	is, err := file.Stat(fd, "", file.Itself)
	if err != nil || is.Kind != file.Regular {
		return h, key, false, err
	}
	b := make([]byte, headerSize)
	n, err := file.ReadAt(fd, b, 0)
	if err != nil {
		return h, key, false, err
	}
	h, ok = parse(b[:n], is.Size, used)
	return h, of(is), ok, nil
}

// sized tells whether a file may be a database by its size.
func sized(size int64) bool { return size >= smallest && size%smallest == 0 }

// parse returns false for what only looks like a database, or not even that:
// an encrypted one is bytes without a meaning. One that is not whole pages has
// been cut off, unless somebody uses it: then its end is being written, which the
// kernel does in pieces of its own.
func parse(b []byte, size int64, used bool) (h header, ok bool) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return h, false
	}
	page := int64(binary.BigEndian.Uint16(b[16:]))
	if page == 1 {
		page = 65536
	}
	switch {
	case page < smallest || page&(page-1) != 0 || size%page != 0 && !used:
		return h, false
	case b[18] < 1 || b[18] > 2 || b[19] < 1 || b[19] > 2:
		return h, false
	case b[21] != 64 || b[22] != 32 || b[23] != 32:
		return h, false
	}
	h.wal = b[18] == 2
	if v := binary.BigEndian.Uint32(b[96:]); v > 0 {
		h.version = fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1000%1000, v%1000)
	}
	return h, true
}
