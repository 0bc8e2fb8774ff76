package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// rounds puts 0, 1, 2 … into a file in each folder in turn, each to the disk before the
// next one, until SIGTERM.
func rounds(ctx context.Context, dirs []string) error {
	files := make([]*os.File, len(dirs))
	for i, dir := range dirs {
		f, err := os.Create(filepath.Join(dir, "counter"))
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	for n := int64(0); ctx.Err() == nil; n++ {
		for _, f := range files {
			if _, err := f.WriteAt(fmt.Appendf(nil, "%020d\n", n), 0); err != nil {
				return err
			}
			if err := f.Sync(); err != nil { // what is not held at the instant shows what was durable
				return err
			}
		}
	}
	return nil
}

// ordered wants copies of those folders that are of one moment: no number is larger
// than the one before it, and the first is at most one round ahead of the last.
func ordered(dirs []string) error {
	var all []int64
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "counter"))
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return err
		}
		all = append(all, n)
	}
	for i := range all[1:] {
		if all[i+1] > all[i] {
			return fmt.Errorf("not of one moment: %v", all)
		}
	}
	if all[0]-all[len(all)-1] > 1 {
		return fmt.Errorf("rounds lie between the first and the last: %v", all)
	}
	fmt.Println(all)
	return nil
}
