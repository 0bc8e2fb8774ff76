package doctor

import "time"

// Preflight are the checks that concern the plan of a backup and are cheap: they
// read some files of /proc and ask no volume anything. What the plan itself finds
// out, or the backup does anyway, is not among them; nor is the load, which is
// another one by the time it matters.
func Preflight(h Host, s Subject, c Caching, now time.Time, last Last) []Check {
	checks := []Check{Swap(s), Clock(now, last, nil)}
	if len(c.Volumes) > 0 {
		checks = append(checks, Cache(h, s, c), Scanners(h, s, CacheVolumes(s, c), Own(h)), Rivals(h))
	}
	return checks
}
