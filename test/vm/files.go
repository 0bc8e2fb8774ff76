package vm

import (
	"context"
	_ "embed" // for the guest's unit
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed guest.service
var guestUnit []byte

// BuildGuest builds the program that talks to us from within the machine into the
// folder dir, with the unit that starts it.
func BuildGuest(ctx context.Context, dir string) ([]File, error) {
	if err := Build(ctx, dir, "stillpoint/test/vm/guest"); err != nil {
		return nil, err
	}
	unit := filepath.Join(dir, "stillpoint-guest.service")
	if err := os.WriteFile(unit, guestUnit, 0o644); err != nil {
		return nil, err
	}
	return append([]File{{Path: "/usr/local/bin/guest", From: filepath.Join(dir, "guest")}}, Unit(unit, "multi-user.target")...), nil
}

// Unit installs a unit of systemd, enabled for a target.
func Unit(from, target string) []File {
	name := filepath.Base(from)
	const units = "/etc/systemd/system/"
	return []File{{Path: units + name, From: from}, {Path: units + target + ".wants/" + name, Link: "../" + name}}
}

// Build builds commands of this project into the folder dir, such as need nothing of
// the machine that they run on.
func Build(ctx context.Context, dir string, packages ...string) error {
	return BuildTagged(ctx, dir, "", packages...)
}

// BuildTagged is Build with build tags, such as "faults".
func BuildTagged(ctx context.Context, dir, tags string, packages ...string) error {
	c := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-tags", tags, "-o", dir + "/"}, packages...)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build for the machine: %w\n%s", err, out)
	}
	return nil
}
