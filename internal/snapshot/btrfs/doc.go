// Package btrfs takes snapshots with the file system's own. It speaks to the
// kernel only and needs no btrfs program.
//
// # What is taken
//
// The subvolumes that hold the selected paths and all that are nested below
// these paths, each once, however many targets or mounts show it. Left out by
// rule, and named as a gap without a code, are nested read-only snapshots: what
// snapper, timeshift or btrbk keep as history. They are taken when they, or
// something in them, are selected.
//
// Where a nested subvolume is shown is read from the snapshots themselves: the
// name of a subvolume is a record in the tree that holds it, and so is part of
// the snapshot, where it leads to an empty directory. One that was moved,
// deleted or made since Prepare is so shown where it was at the instant, not
// shown, or named as a gap; nothing depends on the moment of a look at the live
// file system. Only the parts of a snapshot that were written since Prepare are
// searched for such records.
//
// A selected path may lie in a nested subvolume of which the outer ones are not
// needed. Then the directories that lead there are made in memory.
//
// # Where it is kept
//
// The top level (subvolid=5) is mounted for this process alone, whether or not
// it is mounted elsewhere. In it are, while sets live,
//
//	/.stillpoint/SET.set           the record of a set, tagged and locked
//	/.stillpoint/SET/ID/snapshot   the snapshot of subvolume ID
//
// The record is a file that gets its name when it is complete and on disk; it
// says what is going to be made, then what was made. Its process holds a lock
// on it, so that a leftover is told from a living set without a process id,
// which another process may have by then. A snapshot is deleted by its id when
// its UUID is the one on record. If its process died before it could write the
// UUID down, then parent UUID, read-only flag, a creation after the record and
// the directory it was made in must all fit. A snapshot of the top level has an
// empty directory in place of /.stillpoint. The folder goes with the last set if
// it has our tag. Who owns the top level may have renamed it: snapshots are
// looked for in the list of subvolumes, too, and from there the folder is found.
//
// Views are put together in a private mount namespace and reached by
// descriptor; they are gone with the process.
//
// # Instants
//
// The kernel makes a snapshot in the commit of a transaction. All that ask for
// one before the commit closes share that commit and so are of one instant.
// Commit therefore starts a commit of something small and then asks for all
// snapshots at once: they gather while that is written. Each is made in a
// directory of its own, since the kernel keeps that locked meanwhile; more than
// 64 are taken in batches of that many, one instant or more for each. It is no
// promise, so Instants is the number of subvolumes; the transaction that each
// snapshot says it was made in tells how it came. Two snapshots of different
// transactions still show one instant when nothing in the later one's
// subvolume changed after the earlier transaction; this is looked at, too.
//
// Measured on Linux 6.18 with 2 CPUs, busy with other things, on a loop device:
// of 25 sets those that were of a single transaction, and the mean time of
// Commit, under no load and under 4 writers that pause for 5 ms, that sync, and
// that do neither. Where it was not one transaction it was two, rarely more.
//
//	                           idle         pausing      syncing      neither
//	 5 subvolumes              24,   9 ms   24,  24 ms   25,  41 ms   10,  100 ms
//	20 subvolumes              17,  17 ms   18,  24 ms   25,  40 ms    8,  169 ms
//	20, one after the other     0,  88 ms    0, 129 ms    0, 251 ms    0, 1741 ms
//
// # Writes that were not made durable
//
// Their order is NOT kept. The kernel writes the data of a subvolume that is in
// memory before the transaction of the snapshot, not in it: data written in
// between stays out, while names and attributes changed in between get in. So a
// snapshot may show a file created or renamed without the data that the same
// process wrote before; as after a power cut. Of one process that wrote records
// and after each made a name, without fsync, and as fast as it could, 18 to 20
// of 20 snapshots showed a name without its record; with half a millisecond
// between, 1 to 7 of 20. The check prefix-not-durable is a known deviation.
//
// What was made durable is in order, within one subvolume and between
// subvolumes of one instant: 0 of 60 captures under writers that sync (30 of
// one subvolume, 30 of three) showed anything else; of the 30 sets of three 29
// were of one instant.
//
// A file system mounted with flushoncommit keeps the order of all writes: 0 of
// 180 of the first kind, and the check passes. There all data in memory is
// written within the transaction, while nobody else can start a change. No
// other way was found (doc/design/002): on a frozen file system the call waits
// for the thaw, and then writers are as early as it is.
//
// # What it cannot do
//
// A subvolume with a swap file in use cannot be taken: swap-active for a
// selected path, a gap with that code for a nested one. A file system that is
// read-only has no snapshots; it is not made writable either. One whose UUID is
// on another device, too, and that the kernel therefore knows by a temporary one
// (Linux 6.7), is refused, and nothing on it is cleaned up.
//
// Before about Linux 6.8 a snapshot of a subvolume that was just deleted turns the
// file system read-only; we ask directly before, but the kernel may be faster.
package btrfs
