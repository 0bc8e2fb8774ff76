package main

import (
	"archive/tar"
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What go test gives to a test program holds in the machine, and what it asks for is
// brought to where it was asked for.
func TestCall(t *testing.T) {
	t.Setenv("STILLPOINT_TEST_WORD", "it's one")
	c := newCall([]string{
		"-test.paniconexit0", "-test.timeout=10m0s", "-test.run=^(A|B)$", "-test.outputdir=/here",
		"-test.coverprofile=cover.out", "-test.cpuprofile=/else/cpu.out", "-test.gocoverdir=/here/dir", "-test.v=true",
	})
	want := []result{{"/here/cover.out", "/test/results/0", false}, {"/else/cpu.out", "/test/results/1", false}, {"/here/dir", "/test/results/2", true}}
	if !slices.Equal(c.results, want) {
		t.Errorf("results are %v, want %v", c.results, want)
	}
	if c.most() <= 10*time.Minute || c.most() >= 11*time.Minute {
		t.Errorf("all may take %s, and go test waits for 11 minutes", c.most())
	}
	script := c.script(30 * time.Second)
	for _, want := range []string{
		"export STILLPOINT_TEST_WORD='it'\\''s one'\n",
		"mkdir -p /test/results/2\n",
		"exec /test/program '-test.paniconexit0' '-test.run=^(A|B)$' '-test.coverprofile=/test/results/0' '-test.cpuprofile=/test/results/1' " +
			"'-test.gocoverdir=/test/results/2' '-test.v=true' -test.timeout=9m30s",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the script lacks %q:\n%s", want, script)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Setenv("STILLPOINT_VM_DISKS", "2")
	o, err := options()
	if err != nil || o.Disks != 2 || o.boots != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	t.Setenv("STILLPOINT_VM_MEMORY", "much")
	if _, err := options(); err == nil || !strings.Contains(err.Error(), "STILLPOINT_VM_MEMORY") {
		t.Errorf("a size that is no number: %v", err)
	}
}

// An archive cannot put a file elsewhere.
func TestUnpack(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"./", "./covmeta.1", "./../covcounters.1"} {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := unpack(b.Bytes(), dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != "covcounters.1" || entries[1].Name() != "covmeta.1" {
		t.Errorf("unpacked are %v, %v", entries, err)
	}
}
