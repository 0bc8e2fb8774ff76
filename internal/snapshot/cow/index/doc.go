// Package index knows the names and attributes that selected trees of one
// volume had at one instant. It reads them while the volume is in use, notes
// what changes meanwhile, and under a freeze looks again at the little that is
// left.
//
// # Why it is exact
//
// Everything is known by inode: a directory is a list of names with inode
// numbers. A change makes an event with the handles of what it concerns, before
// the call that made it returns. The work is done in rounds. In each, what
// changed is taken out of the notes first and looked at then, so that whatever
// changes after a look is in the notes of a later round; and within a round it
// does not matter who is first. The last round is under the freeze: then every
// look shows what is true at the instant, and everything that changed since the
// last look at it is looked at. So no order of events matters, and no event is
// taken for more than a hint where to look.
//
// A handle tells an inode from a later one of the same number. A directory that
// was moved is the same inode with the same names in it, which are never read
// again. One that came from outside of the selection is read in full.
//
// # What is not seen
//
// Some changes make no event: a store to a mapping and asynchronous I/O move the
// times of a file that somebody has open (their inode numbers are given to
// Finish); FS_IOC_SETFLAGS alone changes inode flags; the number of blocks changes
// when data are written to disk; and access times change with every reading.
// Of these the index shows what it saw last. Inode flags are those that can be
// set: not what a file system tells of its own layout (ext4's e and I).
//
// The process that freezes the volume must not have files of it mapped: a store
// that waits for the thaw holds mmap_lock, at which everything else of the
// process then stops.
package index
