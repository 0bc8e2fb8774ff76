// Package fault holds the named places at which a test may end or halt the
// program, to prove that nothing is left behind from there. In a normal build
// a point costs nothing and does nothing; with the build tag "faults" it obeys
// STILLPOINT_FAULT. It knows nothing but names.
package fault

// Points lists every point, in the order in which a backup and then a restore
// pass them. The end-to-end test kills the program at each one in turn, and
// fails when a point was not reached.
var Points = []string{
	"backup:planned",
	"btrfs:folder-made",
	"btrfs:intent-recorded",
	"btrfs:places-made",
	"capture:prepared",
	"capture:at-rest",
	"capture:held",
	"btrfs:snapshot-created",
	"btrfs:snapshot-recorded",
	"btrfs:mounted",
	"capture:taken",
	"capture:resumed",
	"capture:thawed",
	"backup:captured",
	"repository:file-stored",
	"repository:checkpoint-saved",
	"backup:stored",
	"backup:asked",
	"repository:recorded",
	"backup:recorded",
	"btrfs:releasing",
	"btrfs:snapshot-deleted",
	"btrfs:places-removed",
	"btrfs:record-removed",
	"backup:released",
	"restore:file-written",
	"restore:file-linked",
	"restore:directory-done",
}

// OfZFS are passed where ZFS takes the snapshots, in this order. The checks of the
// provider kill the program at each of them, in a virtual machine.
var OfZFS = []string{
	"zfs:intent-recorded",
	"zfs:snapshots-made",
	"zfs:snapshots-recorded",
	"zfs:mounted",
	"zfs:releasing",
	"zfs:snapshots-destroyed",
	"zfs:record-removed",
}

// DM lists the points of the provider that uses device-mapper, which the machine
// of the end-to-end test need not have: they are passed in virtual machines.
var DM = []string{
	"dm:store-made",
	"dm:laid",
	"dm:snapshot-loaded",
	"dm:table-loaded",
	"dm:origin-asks",
	"dm:captured",
	"dm:shown",
	"dm:releasing",
	"dm:snapshot-removed",
	"dm:origin-restored",
}

// DMSlow is passed between two tries to give a device another table, which takes a disk
// that does not answer: a test halts us there while another program changes the device.
const DMSlow = "dm:slow"
