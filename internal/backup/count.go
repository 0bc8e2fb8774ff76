package backup

import (
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/repository"
	"stillpoint/internal/volume"
)

// count puts the numbers into the report and the record.
func (b *backing) count(began time.Time) {
	b.rec.Ended = b.e.now()
	b.rec.Stored = b.o.Progress.StoredBytes.Load()
	var tallied job.Report
	b.tally.Fill(&tallied)
	for _, x := range tallied.Exceptions {
		b.rec.Exceptions += int(x.Count)
	}
	b.rec.Status = string(job.Complete)
	if b.rec.Exceptions > 0 {
		b.rec.Status = string(job.CompleteWithExceptions)
	}
	// A nested part counts for the volume it is nested in, unless it is one
	// of the plan itself; each counts once.
	counted := map[volume.ID]bool{}
	for _, vr := range b.report.Volumes {
		counted[volume.ID(vr.ID)] = true
	}
	for i := range b.report.Volumes {
		vr := &b.report.Volumes[i]
		vr.Counts = counts(b.o.Progress.Volume(vr.ID).Values())
		for _, part := range b.partsOf(volume.ID(vr.ID)) {
			if !counted[part] {
				counted[part] = true
				vr.Counts.Add(counts(b.o.Progress.Volume(string(part)).Values()))
			}
		}
		vr.Took = job.Millis(b.rec.Ended.Sub(began))
	}
	if files, bytes := b.o.Progress.Spared(); b.report.Resumed {
		b.report.Spared = &job.Spared{Files: files, Bytes: bytes}
	}
	b.report.Total = counts(b.o.Progress.Total())
	b.report.Total.BytesStored = b.rec.Stored
	if len(b.report.Volumes) == 1 {
		b.report.Volumes[0].Counts.BytesStored = b.rec.Stored
	}
}

// partsOf are the subvolumes that are read as parts of a volume of the plan.
func (b *backing) partsOf(id volume.ID) (parts []volume.ID) {
	if parts, ok := b.parts[id]; ok {
		return parts
	}
	for _, s := range b.plan.sources {
		if s.place.volume.ID == id && s.place.part != "" {
			parts = append(parts, s.place.part)
		}
		for _, g := range s.grafts {
			if g.within == id {
				parts = append(parts, g.place.volume.ID)
			}
		}
	}
	return parts
}

func counts(c repository.Counts) job.Counts {
	return job.Counts{Files: c.Files, Directories: c.Dirs, Others: c.Others, Bytes: c.Bytes, FilesReused: c.Reused, BytesRead: c.ReadBytes}
}
