//go:build amd64 || arm64

package process

import "golang.org/x/sys/unix"

const (
	sysRead           = unix.SYS_READ
	sysPread64        = unix.SYS_PREAD64
	sysReadv          = unix.SYS_READV
	sysPreadv         = unix.SYS_PREADV
	sysPreadv2        = unix.SYS_PREADV2
	sysExecve         = unix.SYS_EXECVE
	sysExecveat       = unix.SYS_EXECVEAT
	sysSendfile       = unix.SYS_SENDFILE
	sysSplice         = unix.SYS_SPLICE
	sysCopyFileRange  = unix.SYS_COPY_FILE_RANGE
	sysWrite          = unix.SYS_WRITE
	sysPwrite64       = unix.SYS_PWRITE64
	sysWritev         = unix.SYS_WRITEV
	sysPwritev        = unix.SYS_PWRITEV
	sysPwritev2       = unix.SYS_PWRITEV2
	sysIoSubmit       = unix.SYS_IO_SUBMIT
	sysFallocate      = unix.SYS_FALLOCATE
	sysMadvise        = unix.SYS_MADVISE
	sysTruncate       = unix.SYS_TRUNCATE
	sysFtruncate      = unix.SYS_FTRUNCATE
	sysIoctl          = unix.SYS_IOCTL
	sysOpenat         = unix.SYS_OPENAT
	sysOpenByHandleAt = unix.SYS_OPEN_BY_HANDLE_AT
)
