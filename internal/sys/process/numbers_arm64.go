package process

import "golang.org/x/sys/unix"

// arm64 has no open and no creat.
const (
	sysOpen  = -1 << 62
	sysCreat = -1<<62 + 1
	sysMmap  = unix.SYS_MMAP
)

// Of 32-bit programs (arch/arm64/tools/syscall_32.tbl).
const (
	compatSendfile      = 187
	compatSendfile64    = 239
	compatSplice        = 340
	compatCopyFileRange = 391
)
