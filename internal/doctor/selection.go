package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// Selection looks at what of the selected paths no snapshot is taken of: the EFI
// system partition, file systems in memory and on servers.
func Selection(s Subject) Check {
	return Check{Name: "selection", Look: func(context.Context) ([]Finding, error) {
		if s.whole() {
			return none("no paths were given"), nil
		}
		var fs []Finding
		var mounts []Finding
		for _, path := range s.Paths {
			v, _, _, err := s.Table.Find(path)
			if err != nil {
				return fs, err
			}
			if f, bad := selected(path, v); bad {
				fs = append(fs, f)
			}
			mounts = append(mounts, below(s, path)...)
		}
		fs = append(fs, atMost(mounts, namedMost)...)
		if len(fs) == 0 {
			return []Finding{fine("all that is selected lies on %s", places(s.Volumes))}, nil
		}
		return fs, nil
	}}
}

func places(vs []volume.Volume) string {
	var all []string
	for _, v := range vs {
		all = append(all, fmt.Sprintf("%s (%s)", at(v), v.FSType))
	}
	return strings.Join(all, ", ")
}

// selected is about a path that was selected itself.
func selected(path string, v volume.Volume) (Finding, bool) {
	f := Finding{Result: Failure, Subject: path, Means: "a backup of it fails", Advice: "leave the path out of the job"}
	switch v.Kind {
	case volume.EFI:
		f.Code, f.Text = problem.VolumeEFI, "lies on the EFI system partition, of which no snapshot can be taken"
		f.Advice = "leave it out, and keep a copy of it on a volume that is backed up; or read it as it is: --provider none"
	case volume.Memory:
		f.Code, f.Text = problem.VolumeMemory, fmt.Sprintf("lies on %s, in memory", v.FSType)
		f.Advice = "leave it out, or read it as it is: --provider none"
	case volume.Virtual:
		f.Code, f.Text = problem.VolumeMemory, fmt.Sprintf("lies on %s, which the kernel makes up", v.FSType)
	case volume.Network:
		f.Code, f.Text = problem.VolumeNetwork, fmt.Sprintf("lies on %s (%s), on another host", v.FSType, v.Source)
		f.Advice = "back it up on the host where it lies, or read it as it is: --provider none"
	default:
		return Finding{}, false
	}
	return f, true
}

// below is about what is mounted below a selected path.
func below(s Subject, path string) (fs []Finding) {
	for _, b := range s.Table.Below(path) {
		point, v := b.Mount.Point, b.Volume
		if !s.holds(point) || slices.ContainsFunc(s.Paths, func(p string) bool { return p == point }) {
			continue
		}
		const means = "what is in it will not be in the backup"
		switch v.Kind {
		case volume.EFI:
			fs = append(fs, warned(problem.VolumeEFI, point, "is the EFI system partition").
				so(means+", which is complete with exceptions then", "leave it out by rule (--exclude "+point+"), and keep a copy of it on a volume that is backed up"))
		case volume.Memory:
			if !system(point) {
				fs = append(fs, warned(problem.VolumeMemory, point, "is a memory file system (%s), where one would expect files to stay", v.FSType).
					so(means, "leave it out by rule (--exclude "+point+") if it may be lost"))
			}
		case volume.Network:
			fs = append(fs, warned(problem.VolumeNetwork, point, "is on another host: %s (%s)", v.Source, v.FSType).
				so(means, "back it up on the host where it lies; or leave it out by rule (--exclude "+point+")"))
		}
	}
	return fs
}

// atMost leaves so many of each code, and says how many more there are: a host of
// containers has thousands of mounts.
func atMost(all []Finding, most int) (fs []Finding) {
	count := map[problem.Code]int{}
	last := map[problem.Code]Finding{}
	for _, f := range all {
		if count[f.Code]++; count[f.Code] <= most {
			fs = append(fs, f)
		} else {
			last[f.Code] = f
		}
	}
	for _, code := range slices.Sorted(maps.Keys(last)) {
		f := last[code]
		f.Subject, f.Text = "", fmt.Sprintf("and %d more; the last is %s, which %s", count[code]-most, f.Subject, f.Text)
		fs = append(fs, f)
	}
	return fs
}

// system tells whether a memory file system is where every Linux may have one.
func system(point string) bool {
	return slices.Contains([]string{"/tmp", "/var/tmp", "/var/run", "/var/lock"}, point) ||
		slices.ContainsFunc([]string{"/dev", "/run", "/sys", "/proc"}, func(dir string) bool { return within(dir, point) })
}

// Swap looks for files in the selection that the kernel swaps to.
func Swap(s Subject) Check {
	return Check{Name: "swap", Look: func(context.Context) ([]Finding, error) {
		var fs []Finding
		files := 0
		for _, swap := range s.Table.Swaps() {
			if !swap.File {
				continue
			}
			files++
			path, err := s.Table.Resolve(swap.Path)
			if err != nil || !s.holds(path) {
				continue // where it was when it was switched on, it is not now
			}
			fs = append(fs, warned(problem.SwapSelected, path, "is a swap file in use, of %d MiB", swap.Size>>20).
				so("its content is of no use after a restore, changes without a sign, and on btrfs keeps its subvolume from being taken", "leave it out: --exclude "+path))
		}
		if len(fs) > 0 {
			return fs, nil
		}
		if files == 0 {
			return none("there is no swap file"), nil
		}
		return []Finding{fine("no swap file is in the selection")}, nil
	}}
}
