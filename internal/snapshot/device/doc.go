// Package device shows a block device that holds a file system as it was at one
// instant, as a directory. It knows which file systems can be shown so, how each
// is mounted beside its origin, and what their journals mean; how the device came
// into being it does not know.
//
// A device is shown read-only, in private mounts that go with the process.
//
//   - XFS: nouuid, for the origin is mounted and has the same UUID; norecovery. The
//     log of a frozen XFS looks as if a recovery were needed (xfs_fs_freeze writes
//     a record on purpose, so that unlinked inodes are cleaned up after a crash),
//     though everything is in its place.
//   - ext4, and ext2 and ext3 by its driver: noload, and errors=continue, for a
//     superblock may say that the host is to panic.
//   - All others are refused: a btrfs is known by its UUID alone, and a mount of
//     its copy shows the original.
//
// Who says that the device is of a frozen file system is believed for XFS; an ext4
// says itself whether its journal is empty. Where it is not, the journal has to be
// replayed. That writes, so it is done in a Layer of the device, which is thrown
// away, and never on the device: this must be read-only for the kernel, too, since
// ext4 cleans up its orphans even when it is mounted read-only
// (ext4_orphan_cleanup in fs/ext4/orphan.c), unless the device refuses. A journal on
// a device of its own has no layer, and is not replayed.
package device
