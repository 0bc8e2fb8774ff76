// Package hot finds what can change files of a volume without a pre-content
// event: whoever had a file open for writing before the filter was there,
// shared mappings, files registered with io_uring, and what in the kernel
// itself writes to files. It only looks; what is done about a file that it
// names is others' matter.
//
// # What is not seen
//
// Descriptors that are on their way in a socket, or that an unfinished
// asynchronous request holds after they were closed; rings of io_uring that
// are neither open nor mapped anywhere; pages that were pinned (direct I/O into
// a mapping, RDMA, registered buffers) before their mapping went away; backing
// files of FUSE passthrough; the file of acct(2), which the kernel tells
// nobody; an export of NFS that no client has asked for yet; overlays in mount
// namespaces without a process; the mappings of files of btrfs, of which the
// kernel tells another device than stat(2). A change of the file's ctime is what
// gives them away.
//
// A Scan is no instant. What moves between processes while it runs is found
// because it looks at least twice, until it finds nothing new; whoever passes a
// descriptor to and fro at the right moments stays unseen. A file opened after
// the filter was there is shielded by it, whenever Scan meets it, if Shielded
// can tell.
package hot

// A Kind is a way to change a file that makes no event.
type Kind string

// The kinds.
const (
	Descriptor Kind = "descriptor" // open for writing, since before the filter as far as is known
	Mapping    Kind = "mapping"    // mapped shared
	Ring       Kind = "io_uring"   // registered with a ring
	Loop       Kind = "loop"       // the backing file of a loop device
	Swap       Kind = "swap"       // a swap file
	Overlay    Kind = "overlay"    // the upper directory of an overlay: everything below it
	Kernel     Kind = "kernel"     // served by the kernel itself: NFS, iSCSI, NVMe
	Quota      Kind = "quota"      // a quota file that the file system itself writes
	Unreadable Kind = "unreadable" // a process, or a part of the kernel, that could not be looked at
)

// A Use is one way in which one file may change unseen.
type Use struct {
	Kind    Kind   `json:"kind"`
	Inode   uint64 `json:"inode,omitempty"`   // on the volume; 0 where it is not known which, or whether any
	PID     int    `json:"pid,omitempty"`     // 0 for the kernel
	Program string `json:"program,omitempty"` // the short name of the process, or of the part of the kernel
	Path    string `json:"path,omitempty"`    // as its user sees it, for people
	Writes  bool   `json:"writes"`            // false for a mapping that is read-only now and may become writable
	Tree    bool   `json:"tree,omitempty"`    // of a directory, everything below it

	// Nameless is a file that had no name when it was looked at: it is in no
	// snapshot, unless it is given one (linkat(2)).
	Nameless bool `json:"nameless,omitempty"`

	// Shielded descriptors are of files that the filter makes events for. They
	// are no danger, and reported only where Options.All asks for it.
	Shielded bool  `json:"shielded,omitempty"`
	From     int64 `json:"from,omitempty"` // the bytes of the file that can change, of a mapping
	To       int64 `json:"to,omitempty"`   // where they end; 0 for all of the file
}

// Options say how to look. The zero value looks at this host, and takes every
// descriptor that is open for writing for hot.
type Options struct {
	// Shielded tells of an open file whether the filter makes events for
	// it. The descriptor is a duplicate that is closed afterwards. It is
	// asked for each one that is open for writing, one at a time. Nil for
	// never.
	Shielded func(fd int) bool

	// All asks for shielded descriptors, too: files that may change in ways
	// that notifications of their directory do not tell, such as asynchronous
	// writes.
	All bool

	// Frozen says that the volume is, so that nothing may be asked that can
	// wait for the thaw, nor a file be closed last by us: Shielded is not
	// asked, and mappings are not looked at, because that waits where one
	// thread waits to store to a mapping and another one to change it. A scan
	// just before, with the filter armed, has found them: what is mapped
	// later makes an event or is of a descriptor that is hot already.
	Frozen bool

	// Passes is how often to look at most; 0 for four times, 1 for once.
	Passes int

	// Proc, Sys and Config are where the kernel's file systems are mounted;
	// empty for /proc, /sys, /sys/kernel/config.
	Proc, Sys, Config string
}
