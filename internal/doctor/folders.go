package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"stillpoint/internal/problem"
)

// Folders looks at folders of ours: whether nobody else can get at them, and
// whether they can be written to. One that is not there is made when it is
// needed.
func Folders(dirs ...string) Check {
	return Check{Name: "folders", Look: func(context.Context) ([]Finding, error) {
		var all []Finding
		for _, dir := range dirs {
			f, err := folder(dir)
			if err != nil {
				return all, err
			}
			all = append(all, f)
		}
		return all, nil
	}}
}

func folder(dir string) (f Finding, err error) {
	defer func() { f.Subject = dir }()
	const means, advice = "job logs have names of files in them, and what the host is made of", "stillpoint doctor --fix, or chmod 0700 and chown it to who runs backups"
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if where, err := above(dir); err != nil {
			return Finding{Result: Failure, Code: problem.StateLost, Text: "cannot be made: " + where + ": " + err.Error()}.
				so("a backup fails, for it needs a log", "mount it for writing, or name another folder: STILLPOINT_STATE"), nil
		}
		f = fine("is not there yet; the first job makes it")
		f.Mend = func(context.Context) (string, error) {
			return "made " + dir + ", for its owner alone", coded(dir, os.MkdirAll(dir, 0o700))
		}
		return f, nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return Finding{Result: Failure, Code: problem.StateLost, Text: "cannot be made: a file is in its way"}.so("a backup fails, for it needs a log", "move the file away"), nil
	}
	if err != nil {
		return f, problem.New(problem.LookFailed, dir, err)
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	switch {
	case !st.IsDir():
		return Finding{Result: Failure, Code: problem.StateLost, Text: "is no folder"}.so("a backup fails, for it needs a log", "move it away"), nil
	case syscall.Access(dir, 2) != nil: // W_OK
		return Finding{Result: Failure, Code: problem.StateLost, Text: "cannot be written to: " + syscall.Access(dir, 2).Error()}.
			so("a backup fails, for it needs a log", "mount it for writing, or name another folder: STILLPOINT_STATE"), nil
	case int(owner) != os.Geteuid():
		return warned(problem.FolderWrong, dir, "belongs to the user %d", owner).so(means, advice), nil
	case st.Mode().Perm()&0o077 != 0:
		f = warned(problem.FolderWrong, dir, "is open to others, with the mode %04o", st.Mode().Perm()).so(means, advice)
		f.Mend = func(context.Context) (string, error) {
			return fmt.Sprintf("closed %s to others, which had the mode %04o", dir, st.Mode().Perm()), coded(dir, os.Chmod(dir, 0o700))
		}
		return f, nil
	}
	return fine("is for its owner alone"), nil
}

// above is the first folder above one that is there, and why nothing can be made in it.
func above(dir string) (string, error) {
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		err := syscall.Access(up, 2) // W_OK
		if err != syscall.ENOENT || up == filepath.Dir(up) {
			return up, err
		}
	}
}

func coded(dir string, err error) error {
	if err == nil {
		return nil
	}
	return problem.New(problem.StateLost, dir, err)
}
