//go:build vm

package vm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A bound is a test of testdata/bound, whose tests are taken into a machine.
type bound struct {
	*testing.T
	dir    string // for what comes back
	inside string // the program
}

// TestInside runs the tests of a package of its own by "go test -exec": how they end, what
// they print and what they cover is known here as if they had run here.
func TestInside(t *testing.T) {
	b := &bound{T: t, dir: t.TempDir()}
	b.inside = filepath.Join(b.dir, "inside")
	if out, err := exec.Command("go", "build", "-o", b.inside, "stillpoint/test/vm/inside").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const covered = "stillpoint/test/vm/testdata/bound/bound.go"
	profile := filepath.Join(b.dir, "cover.out")
	program := filepath.Join(b.dir, "bound.test")
	b.part("passes", func(b *bound) {
		b.ends(0, []string{"--- PASS: TestPasses", "this is Linux version 6.12.", "coverage: 50.0% of statements"}, nil, "go", "test", "-v", "-run=^TestPasses$", "-cover", "-coverprofile="+profile)
		b.covers(profile, covered+":5.17,7.2 1 1", covered+":10.19,12.2 1 0")
	})
	b.part("fails", func(b *bound) {
		b.ends(1, []string{"--- FAIL: TestFails", "is not as it is to be", "FAIL\tstillpoint/test/vm/testdata/bound"}, nil, "go", "test", "-run=^Test(Passes|Fails)$", "-coverprofile="+profile)
		b.covers(profile, covered+":5.17,7.2 1 1") // as that of a test that fails on this machine
	})
	b.part("exits", func(b *bound) {
		b.ends(0, nil, nil, "go", "test", "-c", "-o", program)
		b.ends(3, nil, nil, b.inside, program, "-test.run=^TestExits$")
	})
	b.part("panics", func(b *bound) {
		b.ends(1, []string{"panic: cannot go on", "FAIL\tstillpoint/test/vm/testdata/bound"}, nil, "go", "test", "-run=^TestPanics$")
	})
	// They end by themselves, and say where they were, before go test would end the machine.
	b.part("hangs", func(b *bound) {
		b.ends(1, []string{"panic: test timed out", "TestHangs", "FAIL\tstillpoint/test/vm/testdata/bound"}, []string{"Test killed"}, "go", "test", "-run=^TestHangs$", "-timeout=2m")
	})
	// What the first one prints may be lost with the power.
	b.part("boots", func(b *bound) {
		b.ends(0, []string{`boot 2 finds "of boot 1"`, "--- PASS: TestBoots"}, nil, "env", "STILLPOINT_VM_BOOTS=2", "go", "test", "-v", "-run=^TestBoots$")
	})
	// Who does not want it back has lost it.
	b.part("boots once", func(b *bound) {
		b.ends(1, []string{"the machine has no power any more"}, []string{"--- PASS"}, "go", "test", "-run=^TestBoots$")
	})
}

func (b *bound) part(name string, f func(*bound)) {
	began := time.Now()
	b.Run(name, func(t *testing.T) {
		f(&bound{t, b.dir, b.inside})
		t.Logf("%s took %s", name, time.Since(began).Round(time.Second))
	})
}

// ends runs a command that is to end with a code, having said something and not
// something else.
func (b *bound) ends(code int, says, not []string, command ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 6*time.Minute)
	defer cancel()
	if command[0] != b.inside {
		command = replaced(command, "test", "test", "-exec="+b.inside)
	}
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Dir = "testdata/bound"
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-count=1", "STILLPOINT_VM_KERNEL=trixie")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		b.Fatal(err)
	}
	if got != code {
		b.Errorf("%s ended with %d, not with %d", strings.Join(command, " "), got, code)
	}
	for _, text := range says {
		if !strings.Contains(out.String(), text) {
			b.Errorf("it does not say %q", text)
		}
	}
	for _, text := range not {
		if strings.Contains(out.String(), text) {
			b.Errorf("it says %q", text)
		}
	}
	if b.Failed() {
		b.Logf("%s", out.Bytes())
	}
}

// replaced is a list in which others stand for a word.
func replaced(list []string, word string, others ...string) (l []string) {
	for _, w := range list {
		if w == word {
			l = append(l, others...)
			continue
		}
		l = append(l, w)
	}
	return l
}

// covers wants lines in a profile.
func (b *bound) covers(profile string, lines ...string) {
	b.Helper()
	text, err := os.ReadFile(profile)
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range lines {
		if !strings.Contains(string(text), line+"\n") {
			b.Errorf("the profile lacks %q:\n%s", line, text)
		}
	}
	if err := os.Remove(profile); err != nil {
		b.Error(err)
	}
}
