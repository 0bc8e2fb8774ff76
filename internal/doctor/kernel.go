package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// Kernel looks whether the kernel is new enough for snapshots of plain volumes that
// nobody else takes, and names what would work instead.
func Kernel(h Host, s Subject, choices map[volume.ID]Choice) Check {
	return Check{Name: "kernel", Look: func(context.Context) ([]Finding, error) {
		release, major, minor, err := kernel(h)
		if err != nil {
			return nil, err
		}
		var plain []string
		for _, v := range s.Volumes {
			c := choices[v.ID]
			hindered := c.Err != nil && problem.CodeOf(c.Err) != problem.NoProvider // by something else than the kernel
			if slices.Contains([]string{"ext4", "xfs"}, v.FSType) && c.Provider == nil && !hindered {
				plain = append(plain, at(v))
			}
		}
		if len(plain) == 0 || newer(major, minor, 6, 14) {
			return []Finding{fine("Linux %s", release)}, nil
		}
		f := warned(problem.KernelOld, "", "Linux %s has no events before content is accessed, which came with 6.14: no snapshot can be taken of %s", release, strings.Join(plain, ", "))
		if !s.whole() {
			f.Result = Failure
		}
		return []Finding{f.so("a backup that includes them fails with no-provider",
			"run a kernel from 6.14 on ("+newerKernel(h)+"), or move the data to a logical volume of LVM, or to btrfs, of both of which snapshots can be taken with any kernel; --provider none reads live files meanwhile")}, nil
	}}
}

// kernel is what runs: "6.1.0-28-amd64".
func kernel(h Host) (release string, major, minor int, err error) {
	b, err := os.ReadFile(filepath.Join(h.Proc, "sys/kernel/osrelease"))
	if err != nil {
		return "", 0, 0, err
	}
	release = strings.TrimSpace(string(b))
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return release, 0, 0, problem.Newf(problem.LookFailed, "", "version of the kernel not understood: %q", release)
	}
	return release, major, minor, nil
}

func newer(major, minor, thanMajor, thanMinor int) bool {
	return major > thanMajor || major == thanMajor && minor >= thanMinor
}

// newerKernel says where a distribution has newer kernels.
func newerKernel(h Host) string {
	b, _ := os.ReadFile(filepath.Join(h.Etc, "os-release")) // os-release(5); without it there is no advice of that kind
	words := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			for _, w := range strings.Fields(strings.Trim(value, `"'`)) {
				words[w] = true
			}
		}
	}
	switch {
	case words["ubuntu"]:
		return "the HWE kernel of Ubuntu: linux-generic-hwe-24.04"
	case words["debian"]:
		return "from Debian's backports: linux-image-amd64"
	case words["rhel"], words["centos"]:
		return "kernel-ml of ELRepo"
	case words["suse"]:
		return "from openSUSE's Kernel:stable repository"
	}
	return "of a newer release of this distribution"
}
