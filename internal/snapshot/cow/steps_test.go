package cow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// A counter is how many steps a process has begun and done, and how many
// nanoseconds the longest one took.
type counter struct {
	begun, done atomic.Uint64
	longest     atomic.Int64
}

func counterIn(m []byte) *counter { return (*counter)(unsafe.Pointer(&m[0])) }

// stuck tells whether no step is made for a second.
func (c *counter) stuck() bool {
	was := c.begun.Load()
	for range 100 {
		time.Sleep(10 * time.Millisecond)
		if c.begun.Load() != was {
			return false
		}
	}
	return true
}

// Step n writes the number n all over a record of one of many files, which stay
// open. Records share pages.
const (
	recordFiles = 40
	recordSlots = 23
	recordBytes = 5000
)

func placeOf(n uint64) (file, slot int) {
	return int(n % recordFiles), int(n / recordFiles % recordSlots)
}

func writeRecords() func(uint64) error {
	var files []*os.File
	for i := range recordFiles {
		f, err := os.OpenFile(fmt.Sprint("file", i), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			panic(err)
		}
		files = append(files, f)
	}
	b := make([]byte, recordBytes)
	return func(n uint64) error {
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], n)
		}
		file, slot := placeOf(n)
		_, err := files[file].WriteAt(b, int64(slot*recordBytes))
		return err
	}
}

// lookAtRecords is nil when dir shows the steps 1 to k, for a k between least
// and most, and of the step after it at most a part.
func lookAtRecords(dir string, least, most uint64) error {
	shown := map[[2]int]uint64{} // the step of each whole record, 0 for none
	torn := map[[2]int]bool{}
	last := uint64(0)
	for i := range recordFiles {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("file", i)))
		if err != nil {
			return err
		}
		for slot := range recordSlots {
			at := [2]int{i, slot}
			record := b[min(len(b), slot*recordBytes):min(len(b), (slot+1)*recordBytes)]
			if len(record) == 0 {
				continue
			}
			n := binary.LittleEndian.Uint64(slices.Concat(record, make([]byte, 8)))
			for k := 0; k+8 <= recordBytes; k += 8 {
				if k+8 > len(record) || binary.LittleEndian.Uint64(record[k:]) != n {
					torn[at] = true
				}
			}
			if !torn[at] {
				shown[at] = n
				last = max(last, n)
			}
		}
	}
	if last < least || last > most {
		return fmt.Errorf("shows %d steps, and there were between %d and %d", last, least, most)
	}
	next := [2]int{}
	next[0], next[1] = placeOf(last + 1)
	for n := last; n > 0 && n+recordFiles*recordSlots > last; n-- {
		var at [2]int
		at[0], at[1] = placeOf(n)
		if shown[at] != n && at != next {
			return fmt.Errorf("step %d is shown, but not step %d: there is %d, torn: %t", last, n, shown[at], torn[at])
		}
	}
	for at := range torn {
		if at != next {
			return fmt.Errorf("record %v is torn, and the step after %d was at %v", at, last, next)
		}
	}
	return nil
}

// Step n makes file n aside, gives it its name, lets "current" be another name
// of it, moves a directory to and fro, and removes file n-keptNames.
const keptNames = 30

func writeNames() func(uint64) error {
	for _, d := range []string{"here", "there", "here/moving"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			panic(err)
		}
	}
	if err := os.WriteFile("here/moving/inside", []byte("inside"), 0o600); err != nil {
		panic(err)
	}
	places := [2]string{"here/moving", "there/moving"}
	return func(n uint64) error {
		name := fmt.Sprint("file-", n)
		err := errors.Join(
			os.WriteFile("aside", content(n), 0o600),
			os.Rename("aside", name),
			os.Link(name, "link"),
			os.Rename("link", "current"),
			os.Rename(places[(n+1)%2], places[n%2]))
		if err != nil || n <= keptNames {
			return err
		}
		return os.Remove(fmt.Sprint("file-", n-keptNames))
	}
}

func content(n uint64) []byte { return []byte(strings.Repeat(fmt.Sprintf("%019d\n", n), 300)) }

// lookAtNames is nil when dir is as it was during a step between least and
// most.
func lookAtNames(dir string, least, most uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	files, last := map[uint64]bool{}, uint64(0)
	for _, e := range entries {
		if num, ok := strings.CutPrefix(e.Name(), "file-"); ok {
			n, err := strconv.ParseUint(num, 10, 64)
			if err != nil {
				return err
			}
			files[n], last = true, max(last, n)
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || string(b) != string(content(n)) {
				return fmt.Errorf("%s holds %d bytes %.20q: %w", e.Name(), len(b), b, err)
			}
		}
	}
	if last < least || last > most {
		return fmt.Errorf("shows %d steps, and there were between %d and %d", last, least, most)
	}
	for n := last; n > 0 && n+keptNames > last; n-- {
		if !files[n] {
			return fmt.Errorf("file %d is there, but not file %d", last, n)
		}
	}
	if len(files) > keptNames+1 {
		return fmt.Errorf("%d files, want %d, and one more at most", len(files), keptNames)
	}
	b, err := os.ReadFile(filepath.Join(dir, "current"))
	if s := string(b); err != nil || s != string(content(last)) && s != string(content(last-1)) {
		return fmt.Errorf("current holds %d bytes %.20q while step %d was made: %w", len(b), b, last, err)
	}
	inside := 0
	for _, d := range []string{"here", "there"} {
		if b, err := os.ReadFile(filepath.Join(dir, d, "moving/inside")); err == nil && string(b) == "inside" {
			inside++
		}
	}
	if inside != 1 {
		return fmt.Errorf("the directory that moves is in %d places", inside)
	}
	return nil
}
