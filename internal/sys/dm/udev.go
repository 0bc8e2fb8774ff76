package dm

// UdevFlags tell the rules of udev what to leave alone. They go in the high half
// of the cookie (libdevmapper.h of lvm2, DM_UDEV_DISABLE_*), and 10-dm.rules asks
// "dmsetup udevflags" what is in it. The low half, by which who made a device may
// wait for udev, stays 0, which libdevmapper never uses: nobody waits.
type UdevFlags uint16

// The flags.
const (
	udevNoSubsystem UdevFlags = 0x0002
	udevNoDisk      UdevFlags = 0x0004 // no links in /dev/disk, no blkid
	udevNoOther     UdevFlags = 0x0008 // nor anybody else's rules: LVM's, multipath's, udisks'
	udevNoFallback  UdevFlags = 0x0020
	udevPrimary     UdevFlags = 0x0040 // it is the device itself that has changed: the flags count

	// Alone is for a device that nobody but its maker is to look at. The node in
	// /dev is made all the same, and the link in /dev/mapper by DM's own rules.
	Alone = udevNoSubsystem | udevNoDisk | udevNoOther | udevNoFallback | udevPrimary
)
