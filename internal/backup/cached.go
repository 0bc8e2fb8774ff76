package backup

import (
	"stillpoint/internal/job"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// cached puts into the report how far the cache files of the snapshots were
// filled. It is asked before these are released, however the job ends.
func (b *backing) cached() {
	for i := range b.report.Volumes {
		v := &b.report.Volumes[i]
		s := b.cap.snaps[volume.ID(v.ID)]
		if s == nil {
			continue // released, or read live
		}
		if c := snapshot.CacheOf(s); c != nil {
			v.Cache = &job.Cache{Dir: c.Dir, Used: c.Used, Maximum: c.Maximum}
		}
	}
}
