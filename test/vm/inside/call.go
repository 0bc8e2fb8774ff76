package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stillpoint/test/vm"
)

// A call is how the test program is to be called, in the machine.
type call struct {
	args    []string
	timeout time.Duration // of the tests; 0 for none
	results []result
}

// A result is a file, or a folder of them, that the program leaves.
type result struct {
	here   string
	there  string
	folder bool
}

// What the flags of a test program that name a result have as values; see go help
// testflag.
var profiles = map[string]bool{
	"-test.blockprofile": true, "-test.coverprofile": true, "-test.cpuprofile": true, "-test.memprofile": true,
	"-test.mutexprofile": true, "-test.testlogfile": true, "-test.trace": true,
}

// newCall makes the arguments of a call on this machine those of one in the other.
func newCall(args []string) *call {
	c := &call{}
	outputDir := ""
	for _, arg := range args {
		if name, value, ok := strings.Cut(arg, "="); ok && name == "-test.outputdir" {
			outputDir = value // the profiles' own paths say it
		}
	}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case ok && name == "-test.timeout":
			c.timeout, _ = time.ParseDuration(value)
			continue
		case ok && name == "-test.outputdir":
			continue
		case ok && name == "-test.gocoverdir":
			arg = name + "=" + c.result(value, true)
		case ok && profiles[name]:
			if !filepath.IsAbs(value) {
				value = filepath.Join(outputDir, value)
			}
			arg = name + "=" + c.result(value, false)
		}
		c.args = append(c.args, arg)
	}
	return c
}

// result returns where in the machine one is to be.
func (c *call) result(here string, folder bool) string {
	there := fmt.Sprintf("/test/results/%d", len(c.results))
	c.results = append(c.results, result{here, there, folder})
	return there
}

// most is how long all may take. Go ends a test program by force a minute after
// its time, and does not know of the machine.
func (c *call) most() time.Duration {
	if c.timeout == 0 {
		return 24 * time.Hour
	}
	return c.timeout + 50*time.Second
}

// script runs the program, so that it ends by itself when its time is over, of which
// some has passed.
func (c *call) script(passed time.Duration) string {
	var b strings.Builder
	b.WriteString("mkdir -p /test/tmp /test/results " + packagePath + "\nchmod 1777 /test/tmp\nexport TMPDIR=/test/tmp\n")
	for _, r := range c.results {
		if r.folder {
			b.WriteString("mkdir -p " + r.there + "\n")
		}
	}
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "STILLPOINT_TEST_") || name == "GOTRACEBACK" || name == "GODEBUG" {
			b.WriteString("export " + name + "=" + quote(value) + "\n")
		}
	}
	b.WriteString("cd " + packagePath + " && exec " + programPath)
	for _, arg := range c.args {
		b.WriteString(" " + quote(arg))
	}
	if c.timeout > 0 {
		b.WriteString(" -test.timeout=" + max(c.timeout-passed, time.Second).String())
	}
	return b.String()
}

// quote makes a word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// fetch brings what the program left. What it was asked for and did not make, such as
// the profile of tests that failed, is not there on this machine either.
func (c *call) fetch(ctx context.Context, m *vm.Machine) error {
	for _, r := range c.results {
		err := r.fetch(ctx, m)
		if err != nil {
			return fmt.Errorf("bring %s: %w", r.here, err)
		}
	}
	return nil
}

func (r result) fetch(ctx context.Context, m *vm.Machine) error {
	res, err := m.Run(ctx, "test -e "+r.there)
	if err != nil || res.Code != 0 {
		return err
	}
	if !r.folder {
		data, err := m.Read(ctx, r.there)
		if err != nil {
			return err
		}
		return os.WriteFile(r.here, data, 0o644)
	}
	if res, err = m.Run(ctx, "tar -cf "+r.there+".tar -C "+r.there+" ."); err != nil || res.Code != 0 {
		return errors.Join(err, fmt.Errorf("tar: %d %s", res.Code, res.Err))
	}
	data, err := m.Read(ctx, r.there+".tar")
	if err != nil {
		return err
	}
	return unpack(data, r.here)
}

// unpack puts the files of an archive into a folder.
func unpack(archive []byte, dir string) error {
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case h.Typeflag != tar.TypeReg:
			continue
		}
		data, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), data, 0o644)
		}
		if err != nil {
			return err
		}
	}
}
