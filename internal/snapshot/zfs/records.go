package zfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// records lists the sets that have one, and clears away what was not finished.
func records(dir string) (sets []string, errs []error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, problem.New(problem.StateLost, dir, err))
		}
		return nil, errs
	}
	for _, e := range list {
		name := e.Name()
		set, isRecord := strings.CutSuffix(name, recordSuffix)
		switch {
		case isRecord && validID(set):
			sets = append(sets, set)
		case strings.HasSuffix(name, partSuffix):
			clearPart(filepath.Join(dir, name))
		default:
			errs = append(errs, foreign(filepath.Join(dir, name), "is not a record"))
		}
	}
	return sets, errs
}

// clearPart removes a record that never got its name, if its process is dead. One that
// was just made and is not locked yet may be taken: then its process fails with ENOENT.
func clearPart(name string) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || time.Since(st.ModTime()) < time.Minute {
		return
	}
	if file.Lock(int(f.Fd())) == nil {
		_ = os.Remove(name)
	}
}
