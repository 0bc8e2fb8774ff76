package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// check looks whether a copy of what busy writes to can have existed at one
// moment, at which there were from to to records.
func check(ctx context.Context, dir, from, to string) error {
	a, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return err
	}
	b, err := strconv.ParseInt(to, 10, 64)
	if err != nil {
		return err
	}
	last, err := checkLogs(dir)
	if err != nil {
		return err
	}
	if last < a || last > b {
		return fmt.Errorf("there are %d records, and at the time it was %d to %d", last, a, b)
	}
	if err := checkRing(filepath.Join(dir, "ring"), last); err != nil {
		return err
	}
	payments, err := checkBank(ctx, filepath.Join(dir, "bank.sqlite"))
	if err != nil {
		return err
	}
	fmt.Printf("records 1 to %d are there, payments 1 to %d, and every cent\n", last, payments)
	return nil
}

func checkLogs(dir string) (int64, error) {
	var all []int64
	for i := range logs {
		f, err := os.Open(filepath.Join(dir, fmt.Sprintf("log.%d", i)))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			n, err := strconv.ParseInt(s.Text(), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("log.%d holds half a record: %w", i, err)
			}
			all = append(all, n)
		}
	}
	slices.Sort(all)
	for i, n := range all {
		if n != int64(i)+1 {
			return 0, fmt.Errorf("record %d is missing, and there are later ones: not of one moment", i+1)
		}
	}
	return int64(len(all)), nil
}

// checkRing wants each slot to hold its newest record up to the last one, which
// itself may not be there yet.
func checkRing(name string, last int64) error {
	ring, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for n := max(1, last-slots+1); n <= last; n++ {
		at := n % slots * slotSize
		if int64(len(ring)) < at+slotSize {
			if n == last {
				continue
			}
			return fmt.Errorf("the ring ends before record %d of %d", n, last)
		}
		text, _, _ := strings.Cut(string(ring[at:at+slotSize]), "\n")
		before := strings.TrimRight(text, "\x00") // nothing yet, or the one of a round before
		switch {
		case text == strconv.FormatInt(n, 10):
		case n == last && (before == "" || before == strconv.FormatInt(n-slots, 10)):
		default:
			return fmt.Errorf("where record %d of %d belongs, the ring has %q: not of one moment", n, last, before)
		}
	}
	return nil
}

func checkBank(ctx context.Context, path string) (int64, error) {
	out, err := sqlite(ctx, path, "PRAGMA integrity_check; SELECT sum(balance) FROM account; SELECT count(*), max(n) FROM payment;")
	if err != nil {
		return 0, err
	}
	var sum, payments, last int64
	if _, err := fmt.Sscanf(out, "ok\n%d\n%d|%d", &sum, &payments, &last); err != nil || sum != accounts*balance || payments != last {
		return 0, fmt.Errorf("the database is not of one moment: %q (%v)", out, err)
	}
	return payments, nil
}
