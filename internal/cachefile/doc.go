// Package cachefile keeps the originals of what changes on a volume while a
// snapshot of it is held: it decides on which volume the file for them goes and
// how large it may become, and it is that file.
//
// The decision is a pure function over volumes. The file has no name and can
// get none: whatever ends the process, nothing is left of it, and no link to
// its content. It is never synced, because after a power cut nobody can use it.
//
// What is saved is in memory at first and is written behind, so that who saves
// waits for no device, and for no freeze of the volume that the file lies on.
// When others need the room, the file gives way: its snapshot is lost.
//
// The package knows volumes and nothing of the ways snapshots are made.
package cachefile
