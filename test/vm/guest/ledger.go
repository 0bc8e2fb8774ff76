package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	every = 16          // records make a file of their own
	kept  = 16          // of those files
	sure  = slots / 2   // newest records whose slots cannot be half overwritten
	leaf  = "record.%d" // the name of such a file
	book  = "ledger"    // the file that all records are appended to
	rest  = 20 * time.Millisecond
)

// ledger writes numbered records in each folder, and says of each that it is safe
// when the disk has said so.
func ledger(ctx context.Context, dirs []string) error {
	errs := make([]error, len(dirs))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i, dir := range dirs {
		wg.Go(func() {
			if errs[i] = keep(ctx, dir); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// A volumeLedger is that of one folder.
type volumeLedger struct {
	dir, log, ring *os.File
	last           int64
}

// keep goes on where a cut of the power has ended it.
func keep(ctx context.Context, dir string) error {
	l, err := openLedger(dir)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := l.record(l.last + 1); err != nil {
			return err
		}
		l.last++
		fmt.Println(dir, l.last)
		time.Sleep(rest)
	}
	return errors.Join(l.log.Close(), l.ring.Close(), l.dir.Close())
}

func openLedger(dir string) (*volumeLedger, error) {
	l := &volumeLedger{}
	var err, err2, err3 error
	l.dir, err = os.Open(dir)
	l.log, err2 = os.OpenFile(filepath.Join(dir, book), os.O_CREATE|os.O_RDWR, 0o644)
	l.ring, err3 = os.OpenFile(filepath.Join(dir, "ring"), os.O_CREATE|os.O_RDWR, 0o644)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	var size int64
	if l.last, size, err = readBook(l.log.Name()); err != nil {
		return nil, err
	}
	_, err = l.log.Seek(size, 0)
	if err := errors.Join(err, l.log.Truncate(size), l.dir.Sync()); err != nil || l.last == 0 {
		return l, err
	}
	// Of the newest one, which may not have been said to be safe, the line may be all
	// that has come to the disk.
	return l, l.fill(l.last)
}

// record makes the record n in all ways that a disk may forget.
func (l *volumeLedger) record(n int64) error {
	if _, err := fmt.Fprintf(l.log, "%d\n", n); err != nil {
		return err
	}
	return l.fill(n)
}

// fill makes the rest of a record whose line is written.
func (l *volumeLedger) fill(n int64) error {
	_, err := l.ring.WriteAt(page(n), n%slots*slotSize)
	if err == nil && n%every == 0 {
		err = l.leaf(n)
	}
	return errors.Join(err, l.log.Sync(), l.ring.Sync())
}

// leaf makes a file, and removes an old one.
func (l *volumeLedger) leaf(n int64) error {
	f, err := os.Create(l.leafName(n))
	if err != nil {
		return err
	}
	_, err = f.Write(page(n))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Remove(l.leafName(n - kept*every)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return l.dir.Sync()
}

func (l *volumeLedger) leafName(n int64) string {
	return filepath.Join(l.dir.Name(), fmt.Sprintf(leaf, n))
}

// page is a slot full of the number n.
func page(n int64) []byte {
	text := fmt.Appendf(nil, "%d\n", n)
	return bytes.Repeat(text, slotSize/len(text)+1)[:slotSize]
}

// readBook returns how many records follow each other from the first one on, and how
// many bytes they are.
func readBook(name string) (last, size int64, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		next := strconv.FormatInt(last+1, 10) + "\n"
		if s.Text()+"\n" != next || size+int64(len(next)) > int64(len(b)) {
			break
		}
		last++
		size += int64(len(next))
	}
	return last, size, nil
}

// checkLedger looks whether all is there up to the record that was safe, after a cut
// of the power.
func checkLedger(dir, text string) error {
	safe, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	last, _, err := readBook(filepath.Join(dir, book))
	if err != nil {
		return err
	}
	if last < safe {
		return fmt.Errorf("%s: %d records are left, and %d were safe", dir, last, safe)
	}
	ring, err := os.ReadFile(filepath.Join(dir, "ring"))
	if err != nil {
		return err
	}
	for n := max(1, safe-sure+1); n <= safe; n++ {
		if err := checkRecord(dir, ring, n); err != nil {
			return fmt.Errorf("%s: of %d safe records: %w", dir, safe, err)
		}
	}
	fmt.Printf("%s: %d records, of which %d were said to be safe\n", dir, last, safe)
	return nil
}

func checkRecord(dir string, ring []byte, n int64) error {
	at := n % slots * slotSize
	if int64(len(ring)) < at+slotSize || !bytes.Equal(ring[at:at+slotSize], page(n)) && !bytes.Equal(ring[at:at+slotSize], page(n+slots)) {
		return fmt.Errorf("the slot of record %d holds something else", n)
	}
	if n%every != 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf(leaf, n)))
	if err == nil && !bytes.Equal(b, page(n)) {
		err = fmt.Errorf("the file of record %d holds something else", n)
	}
	return err
}
