package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker: -X main.release=1.2.3.
var release = "dev"

// version is the release and the versions of what it was built from.
func version() string { return release }

func newVersion(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "print the version of the program and of its repository library",
		Example: "  stillpoint version --json",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return runVersion(e) },
	}
	jsonFlag(c, e)
	return c
}

// versionInfo is what `version --json` prints.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Kopia   string `json:"kopia"`
}

func runVersion(e *env) error {
	v := versionInfo{Version: version(), Go: runtime.Version()}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, m := range b.Deps {
			if m.Path == "github.com/kopia/kopia" {
				v.Kopia = m.Version
			}
		}
	}
	if e.json {
		return e.print(v)
	}
	_, err := fmt.Fprintf(e.stdout, "stillpoint %s (%s, kopia %s)\n", v.Version, v.Go, v.Kopia)
	return err
}
