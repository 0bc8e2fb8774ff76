package process

import "golang.org/x/sys/unix"

const (
	sysOpen  = unix.SYS_OPEN
	sysCreat = unix.SYS_CREAT
	sysMmap  = unix.SYS_MMAP
)

// Of 32-bit programs (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	compatSendfile      = 187
	compatSendfile64    = 239
	compatSplice        = 313
	compatCopyFileRange = 377
)
