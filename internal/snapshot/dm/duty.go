package dm

import (
	"stillpoint/internal/guard"
	"stillpoint/internal/snapshot/bequest"
)

// Duty is what a guard does for a set whose process has died: it gives the origins
// their own tables back, and removes our devices. The main function gives it to
// guard.Main.
func Duty() guard.Duty { return bequest.Of(New(nil)) }
