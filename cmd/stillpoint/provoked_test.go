package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

// unprovoked are the codes that no run of the program here ends with, each with
// the reason.
var unprovoked = map[problem.Code]string{
	problem.Uncatalogued:    "a run that ends with it is a failed test",
	problem.VolumeEFI:       "a FAT file system, which the kernel of the tests does not know; TestOldKernel in test/vm provokes it",
	problem.KernelOld:       "a kernel before 6.14; TestOldKernel in test/vm provokes it",
	problem.PoolFull:        "LVM, which needs device-mapper, which the kernel of the tests has not; TestCodes in test/vm provokes it",
	problem.ZFSStuck:        "ZFS, whose module the kernel of the tests has not; TestZFS in test/vm provokes it",
	problem.LVMStuck:        "LVM, too; TestCodes in test/vm provokes it",
	problem.DeviceSuspended: "device-mapper, which the kernel of the tests has not; TestCodes in test/vm provokes it",
}

// provoked runs all tests, and then compares the codes that runs of the program
// ended with, or named in their report, with the catalogue.
type provoked struct{ m *testing.M }

func (p provoked) Run() int {
	code := p.m.Run()
	if os.Geteuid() != 0 { // then most tests do not run
		return code
	}
	if code != 0 || testing.Short() || flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" || flag.Lookup("test.list").Value.String() != "" {
		return code
	}
	for _, fault := range unprovokedFaults(namedCodes()) {
		fmt.Println(fault)
		code = 1
	}
	return code
}

// unprovokedFaults lists the codes of the catalogue that are not among named.
func unprovokedFaults(named []problem.Code) (faults []string) {
	for _, p := range problem.Pages() {
		is, reason := slices.Contains(named, p.Code), unprovoked[p.Code]
		switch {
		case !is && reason == "":
			faults = append(faults, fmt.Sprintf("no run of the program in these tests ends with %s, or names it in its report", p.Code))
		case is && reason != "":
			faults = append(faults, fmt.Sprintf("%s is provoked, and should not be: %s", p.Code, reason))
		}
	}
	return faults
}

// recorded is the program as scripts run it: with a copy of what it prints, from
// which the codes are taken that it ends with.
func recorded() {
	var tail tailer
	e := newEnv()
	e.stdout, e.stderr = io.MultiWriter(e.stdout, &tail), io.MultiWriter(e.stderr, &tail)
	code := process(e, os.Args[1:])
	if err := note(os.Args[1:], tail.Bytes()); err != nil {
		fmt.Fprintln(os.Stderr, "TEST:", err)
		code = 99
	}
	os.Exit(code)
}

// A tailer keeps the last of what is written to it.
type tailer struct{ bytes.Buffer }

func (t *tailer) Write(b []byte) (int, error) {
	if t.Len() > 1<<20 {
		t.Next(t.Len() - 1<<16)
	}
	return t.Buffer.Write(b)
}

// record does the same for output of the program that a test has read itself.
func record(t *testing.T, args []string, out []byte) {
	t.Helper()
	if err := note(args, out); err != nil {
		t.Error(err)
	}
}

// note writes down the codes that a run of the program ended with. An error
// that reached the user without one is a fault.
func note(args []string, out []byte) error {
	codes := endedWith(args, out)
	if slices.Contains(codes, problem.Uncatalogued) {
		return fmt.Errorf("stillpoint %s: an error reached the user without a code:\n%s", strings.Join(args, " "), out)
	}
	for _, c := range codes {
		// Where all is read-only, as one script has it, nothing is written down.
		_ = os.WriteFile(filepath.Join(notes(), string(c)), nil, 0o666)
	}
	return nil
}

// notes is the folder in which there is a file for each code; testscript makes it
// and takes it away.
func notes() string {
	program, err := exec.LookPath("stillpoint")
	if err != nil {
		return ""
	}
	dir := filepath.Join(filepath.Dir(program), "codes")
	_ = os.Mkdir(dir, 0o777)
	return dir
}

func namedCodes() (codes []problem.Code) {
	files, _ := os.ReadDir(notes())
	for _, f := range files {
		codes = append(codes, problem.Code(f.Name()))
	}
	return codes
}

// endings are the last lines of a run that name its code: of a report, of the
// exceptions in it, of what doctor found, of an error, and of one in JSON.
var endings = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^  explained +stillpoint explain ([a-z-]+)$`),
	regexp.MustCompile(`(?m)^ +[0-9,]+  ([a-z-]+): `),
	regexp.MustCompile(`(?m)^  ([a-z-]+): read what it means and what to do`),
	regexp.MustCompile(`(?m)^[a-z][a-z ]* +(?:warning|failure|could not look) +([a-z-]+)  `), // of doctor
	regexp.MustCompile(`(?m)^\{"error":\{"code":"([a-z-]+)"`),
	regexp.MustCompile(`(?m)^  "code": "([a-z-]+)",$`),
}

func endedWith(args []string, out []byte) (codes []problem.Code) {
	if len(args) > 0 && args[0] == "explain" && !bytes.HasPrefix(out, []byte("stillpoint: ")) && !bytes.HasPrefix(out, []byte(`{"error":`)) {
		return nil // what it prints is no failure
	}
	for _, ending := range endings {
		for _, m := range ending.FindAllSubmatch(out, -1) {
			codes = append(codes, problem.Code(m[1]))
		}
	}
	if bytes.HasSuffix(out, []byte("\nSee --help.\n")) {
		codes = append(codes, problem.Usage)
	}
	return codes
}
