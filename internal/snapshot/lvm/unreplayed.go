package lvm

import (
	"fmt"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/device"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// unreplayed says that the journal of a volume, which d is the device of, holds what is not
// in its place: a freeze leaves that there when the volume went read-only by an error.
func unreplayed(v volume.Volume, d dm.Device) error {
	id := string(v.ID)
	is, err := device.Unreplayed(v.FSType, v.Options, device.Device{Node: d.Node(), Number: d.Number.String()})
	if err != nil {
		return coded(id, fmt.Errorf("look whether its journal is empty: %w", err))
	}
	if is {
		return problem.Newf(problem.NoProvider, id, "went read-only with a journal that is not empty, as by an error, and has to have that replayed, which takes a layer that can be written; the provider dm has one")
	}
	return nil
}
