// Package cachefile keeps the originals of what changes on a volume while a
// snapshot of it is held: it decides on which volume the file for them goes and
// how large it may become, and it is that file.
//
// The decision is a pure function over volumes. The file has no name: whatever
// ends the process, nothing is left of it, and no link to its content. It is
// never synced, because after a power cut nobody can use it.
//
// The package knows volumes and nothing of the ways snapshots are made.
package cachefile
