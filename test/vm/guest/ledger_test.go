package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What a cut may do to records that nobody was told of is fine; what it may not do to
// others is found.
func TestSafe(t *testing.T) {
	const safe = 300
	made := t.TempDir()
	write(t, made, safe+5)
	for _, c := range []struct {
		name   string
		damage func(l *volumeLedger) error
		ok     bool
	}{
		{"nothing", func(*volumeLedger) error { return nil }, true},
		{"the last records lost", func(l *volumeLedger) error { return l.log.Truncate(size(safe) + 2) }, true},
		{"a later slot half written", func(l *volumeLedger) error { return at(l.ring, (safe+6)%slots*slotSize, 100) }, true},
		{"a safe record lost", func(l *volumeLedger) error { return l.log.Truncate(size(safe) - 1) }, false},
		{"a safe slot half written", func(l *volumeLedger) error { return at(l.ring, safe%slots*slotSize, 100) }, false},
		{"a safe slot never written", func(l *volumeLedger) error { return at(l.ring, (safe-100)%slots*slotSize, slotSize) }, false},
		{"a file lost", func(l *volumeLedger) error { return os.Remove(l.leafName(safe / every * every)) }, false},
		{"a file empty", func(l *volumeLedger) error { return os.Truncate(l.leafName(safe/every*every-every), 0) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(write(t, dir, 0)); err != nil {
				t.Fatal(err)
			}
			if err := checkLedger(dir, fmt.Sprint(safe)); (err == nil) != c.ok {
				t.Errorf("the check says %v", err)
			}
		})
	}
}

// A ledger goes on behind the last whole record.
func TestGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := write(t, dir, 100).log.Truncate(size(99) + 2); err != nil {
		t.Fatal(err)
	}
	write(t, dir, 120)
	if err := checkLedger(dir, "120"); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, book))
	if err != nil || bytes.Count(b, []byte("100\n")) != 1 {
		t.Errorf("%v in\n%s", err, b)
	}
}

// A record of which the line is all that came to the disk is made whole, before there
// are later ones that are safe.
func TestMakesWhole(t *testing.T) {
	dir := t.TempDir()
	l := write(t, dir, 6*every)
	if err := errors.Join(at(l.ring, 6*every*slotSize, slotSize), os.Remove(l.leafName(6*every))); err != nil {
		t.Fatal(err)
	}
	write(t, dir, 6*every+2)
	if err := checkLedger(dir, fmt.Sprint(6*every+2)); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, dir string, last int64) *volumeLedger {
	t.Helper()
	l, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	for l.last < last {
		if err := l.record(l.last + 1); err != nil {
			t.Fatal(err)
		}
		l.last++
	}
	return l
}

// size is that of the first n records.
func size(n int64) (bytes int64) {
	for i := range n {
		bytes += int64(len(fmt.Sprintln(i + 1)))
	}
	return bytes
}

// at overwrites n bytes of a file.
func at(f *os.File, offset int64, n int) error {
	_, err := f.WriteAt(make([]byte, n), offset)
	return err
}
