package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// check looks whether a restored tree can have existed at one moment.
func check(ctx context.Context, dir string, w *writers) error {
	last, err := checkRecords(filepath.Join(dir, "logs"))
	if err != nil {
		return err
	}
	fmt.Printf("records 1 to %d are there, across %d files, without a gap or one too many (%d were written by the end)\n", last, logs, w.records.Load())
	names, err := checkSpool(filepath.Join(dir, "spool"))
	if err != nil {
		return err
	}
	fmt.Printf("of the %d renamed and deleted files, %s is there, whole\n", w.moves.Load(), names)
	pays, err := checkBank(ctx, filepath.Join(dir, "db", "bank.sqlite"))
	if err != nil {
		return err
	}
	fmt.Printf("the database opens clean, holds %s payments of %d, and every cent\n", pays, w.pays.Load())
	return nil
}

func checkRecords(dir string) (int, error) {
	var all []int
	for i := range logs {
		f, err := os.Open(filepath.Join(dir, fmt.Sprintf("log.%d", i)))
		if err != nil {
			return 0, err
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			n, err := strconv.Atoi(s.Text())
			if err != nil {
				f.Close()
				return 0, fmt.Errorf("log.%d holds half a record: %w", i, err)
			}
			all = append(all, n)
		}
		f.Close()
	}
	slices.Sort(all)
	for i, n := range all {
		if n != i+1 {
			return 0, fmt.Errorf("record %d is missing, but there are later ones: not of one moment", i+1)
		}
	}
	if len(all) == 0 {
		return 0, errors.New("no records: the backup missed them")
	}
	return len(all), nil
}

func checkSpool(dir string) (string, error) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var ns []int
	for _, e := range es {
		if e.Name() == "incoming" {
			continue
		}
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return "", err
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		if string(b) != strings.Repeat(e.Name()+"\n", 1000) {
			return "", fmt.Errorf("spool/%s is not whole", e.Name())
		}
		ns = append(ns, n)
	}
	slices.Sort(ns)
	if len(ns) == 0 || len(ns) > 2 || len(ns) == 2 && ns[1] != ns[0]+1 {
		return "", fmt.Errorf("spool holds %v: not of one moment", ns)
	}
	return fmt.Sprint(ns), nil
}

func checkBank(ctx context.Context, db string) (string, error) {
	out, err := sqlite(ctx, db, "PRAGMA integrity_check; SELECT sum(balance) FROM account; SELECT count(*) FROM payment;")
	if err != nil {
		return "", err
	}
	lines := strings.Split(out, "\n")
	if len(lines) != 3 || lines[0] != "ok" || lines[1] != strconv.Itoa(accounts*balance) {
		return "", fmt.Errorf("the database is not of one moment: %q", lines)
	}
	return lines[2], nil
}
