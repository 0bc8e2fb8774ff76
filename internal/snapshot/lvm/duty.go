package lvm

import (
	"stillpoint/internal/guard"
	"stillpoint/internal/snapshot/bequest"
)

// Duty is what a guard does for a set whose process has died: it removes our devices
// and the logical volumes, before they fill the pool. The main function gives it to
// guard.Main.
func Duty() guard.Duty { return bequest.Of(New(nil)) }
