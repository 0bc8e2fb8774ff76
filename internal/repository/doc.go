// Package repository keeps backups: it stores trees, records which tree is
// whose backup, lists, reads and verifies them. It is the only importer of the
// kopia library and uses its repository layers (blobs, contents, objects,
// manifests), not its uploader; the stock kopia program can read, restore,
// verify and maintain what lies there.
//
// A backup of several paths is several kopia snapshot manifests that carry the
// same job in a tag; each has user@host:path as its source. Directory objects
// are kopia's JSON; what kopia has no field for lies in one more field of each
// entry, "stillpoint", inline, so that kopia's garbage collection needs to know
// nothing of it.
//
// The package knows directories and names. It does not know snapshots of
// volumes, writers or jobs.
package repository
