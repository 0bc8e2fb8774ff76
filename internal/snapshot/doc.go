// Package snapshot defines how snapshots of volumes are made. It has the words
// and the contract, and no behaviour; each provider is a package below, passes
// the checks of snapshottest, and knows this package and its own technology.
//
// # Words
//
// A snapshot shows a volume as it was at one instant, as a directory. A set is
// what one Prepare makes ready and one Commit takes: one snapshot for each
// target, all or none. A target is a volume and the paths in it that are
// wanted. A part is a piece of a snapshot that was taken by itself, because
// the technology takes such pieces one by one: a volume has at least one, and
// another one for each nested subvolume or dataset. A gap is a place below a
// selected path that a snapshot does not show. A leftover is what a process
// left that ended before it could release it.
//
// # What a snapshot holds
//
// Everything that was made durable (fsync, O_SYNC, msync, sync) before the
// instant, nothing that began after it, and of two durable writes never the
// later one alone: what an application finds after a restore is what it would
// find after a power cut at that instant. Whether writes that were not made
// durable are there, and in which order, is the provider's own matter, and its
// package comment says so. It holds all attributes: owners, modes, times to
// the nanosecond, links, holes, extended attributes, special files. Device
// files and set-user-id bits can be read but have no effect.
//
// Parts whose instants have equal times show one instant together: of writes
// that went to several of them the promise above holds as if they were one.
//
// # The life of a set
//
//	Check ─ Prepare ─ Hold ─ Commit ─ Resume ─ read ─ Err ─ Release
//	             └──────┴──────┴─ Abort
//
// Check is asked while a job is planned. It changes nothing, and what it found
// may be over a moment later: Prepare and Commit fail with the same codes.
//
// Prepare does what is slow, such as finding nested parts, reserving space,
// recording the intent, writing dirty data to disk. Nothing of it can be seen
// by the applications of the host, but for the load.
//
// Hold, Commit and Resume are the window: applications may be at rest and
// writes may be suspended, by this provider or by another one of the same run.
// None of the three may log, start a program, or wait for something that a
// suspended volume might hold. Hold comes before the Commit of the set, and
// there may be others' Holds and Commits between. Resume follows every Hold,
// also a failed one. They are called from one goroutine, but for Resume, which
// may come from another one while Commit still runs, when the window closes
// early.
//
// Commit fixes the instant and nothing else. What can be done afterwards, such
// as mounting, is done when Parts, Gaps or Root is first asked for, which is
// after Resume; these may then take a while, and their failure is that of Err.
//
// Abort undoes. It may be called while Commit still runs; it then waits, and
// what that Commit makes is undone, too, and never returned.
//
// Then the data is read, by any number of goroutines and processes. After the
// last byte, and before a backup is recorded as good, Err is asked.
//
// A provider gives a snapshot up where going on would cost the live system room that
// it needs. Err says so at once; what the provider can only give back when nobody has a
// file of it open makes it a Yielder, whose readers end by themselves.
//
// Release ends the snapshot. Snapshots of a set are released one by one, in
// any order; what they share goes with the last.
//
// # Reading without Root
//
// A snapshot may be Readable, too: then a Reader shows the same as Root does,
// byte for byte and attribute for attribute, and fails where Root would, without
// a file system in between. Whoever wraps a Snapshot has a method Unwrap, and
// whoever wants to know uses Ask. A Lender can be read so by another process.
// The rules are those of Root: after the last byte of a file its Content is asked
// to Verify it, and after the last of all, Err.
//
// # What must fail
//
// Every failure that a user can meet has a code of package problem: Check,
// Prepare, Commit and Release return it, Err keeps it, a Gap carries it. A
// context that is over is refused by everything that takes one. A Commit that
// is over only after its context was is a failure: it came too late. A
// selected path whose part cannot be taken fails the set; a nested part below
// it that cannot be taken, or comes or goes meanwhile, becomes a Gap with a
// code. Never is there an empty directory that nobody mentions.
//
// # What stays on the host
//
// At any moment a kill -9 may come. Mounts must go with the process by
// themselves. Whatever does not is tagged, and its tag is on disk before the
// thing itself exists; a lock that ends with the process tells the living from
// the dead. Leftovers of any later process then finds it, Release of what it
// returns removes it. Nothing is removed whose tag and recorded identity do
// not both fit: names and paths prove nothing. Whatever is found in our own
// place without that proof is reported with the code leftover-foreign, again
// each time, and never touched.
package snapshot
