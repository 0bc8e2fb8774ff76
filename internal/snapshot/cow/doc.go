// Package cow takes snapshots of plain ext4 and XFS volumes on a stock kernel
// from 6.14 on. It knows how the parts below it make one instant: a filter that
// sees every access before it happens, an index of names and attributes, a
// shield that saves originals, what is hot because no event would show it, and
// a view that shows all this as a directory, beside which a backup reads the
// live files directly (package direct).
//
// # The instant
//
// Prepare starts the filter, builds the index of the selected trees while the
// volume is in use, and finds place for the cache file. Hold arms the filter
// and answers no change any more, waits for the tasks that were past the
// filter's check already, writes out what is dirty, and freezes the volumes.
// Commit looks again at what changed since the index was built, copies what is
// hot, lets those who wait go on behind the freeze once their ranges are saved,
// and from then on everybody who wants to change an indexed file waits until
// its original is saved. Resume makes sure that the volumes are still frozen,
// which anybody with the right could have ended, and thaws them.
//
// # What a snapshot holds
//
// The page cache is written before the freeze and is frozen with it, so a
// snapshot holds everything that was written before the instant, durable or
// not, and nothing that was written after it.
//
// # The cache file
//
// It goes to another volume, or to the volume itself where there is no other
// one. Nobody waits for it: what is saved is in memory first. It is reached by
// a private mount that all filters are silent for, and nothing is written to it
// while a volume is frozen that it lies on.
//
// # What stays on the host
//
// Nothing: the filter, the private mounts, the view and the cache file, which
// has no name, end with the process. The guard is a process of its own; it
// thaws what is frozen when this one dies or is late. So is a holder, which lets
// everybody go on when this one is killed, and where it is an agent's (Bequeath)
// keeps the filter for the process that comes next.
package cow
