package process

import "bytes"

// StuckWorkers lists the workers of io_uring that wait for a pipe to be written
// to, inside of a splice to a file. Such a worker is a thread of the process
// whose request it works on, and shows what it does neither by its system call
// nor by descriptors: it has no registers of a user (create_io_thread). No signal
// ends its waiting, and nobody may trace it. A freeze of the file system waits
// for it.
//
// It is told by the function that it sleeps in, and those that called that one
// (/proc/TID/wchan, /proc/TID/stack); a kernel without either hides it. A process
// that does not answer is between two programs, and has no workers any more
// (io_uring_task_cancel in begin_new_exec).
func StuckWorkers() ([]Task, error) {
	all, err := others()
	if err != nil {
		return nil, err
	}
	stuck, _ := survey(all, func(t Task) (Task, bool) { return t, splicesUnseen(t.TID) })
	return stuck, nil
}

// splicesUnseen tells whether a thread without user registers waits in a splice
// from a pipe to a file.
func splicesUnseen(tid int) bool {
	c, err := callOf(tid)
	if err != nil || c.SP != 0 && c.PC != 0 {
		return false
	}
	path := procPath(tid, "wchan")
	var buf [4096]byte
	b, err := path.read(buf[:])
	if err == nil && string(b) != "0" && string(b) != "pipe_wait_readable" {
		return false // a splice waits for data nowhere else (fs/splice.c)
	}
	path = procPath(tid, "stack")
	b, err = path.read(buf[:])
	// The function is called by its address only, so that no compiler can have
	// made it part of another one.
	return err == nil && bytes.Contains(b, []byte(" iter_file_splice_write+")) && bytes.Contains(b, []byte(" pipe_wait_readable+"))
}
