package sqlite

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"stillpoint/internal/problem"
)

// An owner is who a database is opened as. To open one is to believe what lies
// beside it, and whoever has a folder can put a journal there: it is written into
// the database, and may name a file that SQLite then deletes (pager_delsuper; our
// version limits by its name which, SQLite 3.40 does not). As root that could be
// anybody's.
type owner struct{ uid, gid int }

// ownerOf is the owner of the file, who must be the one to trust in its folder,
// too.
func ownerOf(id, path string) (o owner, err error) {
	var file, dir syscall.Stat_t
	if err := syscall.Lstat(path, &file); err != nil {
		return o, problem.New(problem.WriterGone, id, &fs.PathError{Op: "lstat", Path: path, Err: err})
	}
	if err := syscall.Lstat(filepath.Dir(path), &dir); err != nil {
		return o, problem.New(problem.WriterGone, id, &fs.PathError{Op: "lstat", Path: filepath.Dir(path), Err: err})
	}
	switch {
	case dir.Uid != 0 && dir.Uid != file.Uid:
		return o, problem.Newf(problem.WriterRights, id, "its folder is of user %d, and it is of user %d", dir.Uid, file.Uid)
	case file.Uid == 0 && dir.Mode&0o022 != 0:
		return o, problem.Newf(problem.WriterRights, id, "it is root's, and others may put files beside it")
	}
	return owner{int(file.Uid), int(file.Gid)}, nil
}

// do calls f with the owner's rights to files, and no others. That is a matter
// of the thread (setfsuid(2)), and so are the calls of the library: they are made
// in the goroutine that asks for them.
func (o owner) do(f func() error) error {
	if o.uid == 0 || os.Geteuid() != 0 {
		return f() // ours are no more
	}
	runtime.LockOSThread()
	err := syscall.Setfsgid(o.gid)
	if err == nil {
		err = syscall.Setfsuid(o.uid)
	}
	if err != nil {
		return os.NewSyscallError("setfsuid", err) // this thread ends with the goroutine
	}
	defer func() {
		if syscall.Setfsuid(0) == nil && syscall.Setfsgid(0) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}
