package sqlite

import (
	"io/fs"
	"slices"
	"syscall"
)

// Numbers of file systems that have no files of anybody's
// (include/uapi/linux/magic.h).
var kernels = []int64{
	0x9fa0,     // proc
	0x62656572, // sysfs
	0x27e0eb,   // cgroup
	0x63677270, // cgroup2
	0x64626720, // debugfs
	0x74726163, // tracefs
	0x73636673, // securityfs
	0x1cd1,     // devpts
	0xcafe4a11, // bpf
	0x62656570, // configfs
	0x6165676c, // pstore
	0xde5e81e4, // efivarfs
	0x19800202, // mqueue
}

func ofKernel(path string) (bool, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return slices.Contains(kernels, int64(st.Type)), nil
}
