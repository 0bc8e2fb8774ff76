// Package process tells what other processes are doing, from /proc and by
// little-known calls: in which system call a thread is, what it has open, what
// it has mapped, whether it has run. It is made to be quick and to allocate
// little, and knows no word of the product. A failure is the kernel's errno in
// an fs.PathError; what ends while it is looked at is left out.
//
// Of each process only that is read, but by FlagsOfMappings, which never
// waits for its memory to be free (mmap_lock): syscall, stat, status,
// schedstat, comm, fd, fdinfo, and maps, which on Linux 6.18 takes no such lock
// and on older kernels may. A thread that waits in a page fault, for a frozen
// file system or a dead server, can hold that lock for ever; cmdline, environ,
// smaps and numa_maps then wait with it.
//
// One danger is left: who reads maps, stat or status of a process just when it
// ends may be the one who frees its memory (mmput), and with it the last
// reference to a deleted file; on a frozen file system that waits for the
// thaw. So read them before a freeze, or in a thread that may hang.
package process
