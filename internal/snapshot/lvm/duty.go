package lvm

import (
	"stillpoint/internal/guard"
	"stillpoint/internal/snapshot/bequest"
)

// Duty is what a guard does for a set whose process has died: it removes our devices
// and the logical volumes, before they fill the pool. The main function gives it to
// guard.Main.
//
// LVM is always asked: an lvcreate of the process may still be at work, and has neither
// a device by then nor a line in LVM's notes, but the lock of the group, for which lvs
// waits.
func Duty() guard.Duty { return bequest.Of(thorough()) }

// thorough is the provider for who knows that there may be something of ours.
func thorough() *Provider {
	p := New(nil)
	p.always = true
	return p
}
