package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/agent"
	"stillpoint/internal/backup"
	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tree"
	"stillpoint/internal/volume"
)

// TestJSON fixes the output of what differs from host to host, which the
// scripts cannot.
func TestJSON(t *testing.T) {
	v := volume.Volume{
		ID: "u/256", Kind: volume.Local, FSType: "btrfs", UUID: "u", Label: "data", Source: "/dev/sda1",
		Subvolume: &volume.Subvolume{ID: 256, Path: "/@"}, Size: 3, Free: 2, Used: 1, Options: []string{"rw"},
		Stack:  []volume.Device{{Name: "loop0", Number: "7:0", Type: "loop", DMName: "vg-lv", File: "/img", Size: 3}},
		Mounts: []volume.Mount{{Point: "/srv", Root: "/", Options: []string{"rw"}}},
	}
	tests := []struct {
		name string
		v    any
		want string
	}{
		{"volumes", volumeInfoOf(&v), `{
  "id": "u/256",
  "kind": "local",
  "type": "btrfs",
  "uuid": "u",
  "label": "data",
  "source": "/dev/sda1",
  "subvolume": {
    "id": 256,
    "path": "/@"
  },
  "stack": [
    {
      "name": "loop0",
      "number": "7:0",
      "type": "loop",
      "dm_name": "vg-lv",
      "file": "/img",
      "level": 0,
      "size": 3
    }
  ],
  "size": 3,
  "free": 2,
  "used": 1,
  "read_only": false,
  "options": [
    "rw"
  ],
  "mounts": [
    {
      "point": "/srv",
      "root": "/",
      "read_only": false,
      "options": [
        "rw"
      ]
    }
  ]
}
`},
		{"providers", candidateInfoOf(backup.Candidate{Volume: v, Provider: "btrfs", Err: problem.Newf(problem.NoProvider, "", "why"), Reason: "why"}), `{
  "volume": "u/256",
  "type": "btrfs",
  "mount": "/srv",
  "provider": "btrfs",
  "able": false,
  "chosen": false,
  "code": "no-provider",
  "reason": "why"
}
`},
		{"clean", leftoverInfo{"snapshot", "id", "u/256", false, problem.ReleaseFailed, "text"}, `{
  "what": "snapshot",
  "id": "id",
  "volume": "u/256",
  "removed": false,
  "code": "release-failed",
  "text": "text"
}
`},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if err := (&env{stdout: &b}).print(tt.v); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

// Names of any bytes: wherever JSON shows but an approximation, the real name
// is beside it.
func TestNamesInJSON(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src\xff")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(src, "d\xfe"), 0o755),
		os.WriteFile(filepath.Join(src, "d\xfe", "f\xfd"), nil, 0o644),
		os.WriteFile(filepath.Join(src, "left\xfc"), nil, 0o644),
		os.Symlink("to\xfb", filepath.Join(src, "link")),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STILLPOINT_STATE", filepath.Join(dir, "state"))
	t.Setenv("STILLPOINT_REPO", filepath.Join(dir, "repo"))
	t.Setenv("STILLPOINT_PASSWORD", "secret")
	v := volume.Volume{Label: "l\xff", Source: "s\xff", Subvolume: &volume.Subvolume{Path: "p\xff"}, Stack: []volume.Device{{File: "f\xff"}},
		Mounts: []volume.Mount{{Point: "p\xff", Root: "r\xff"}}}
	record := repository.Record{Entry: tree.Entry{Target: "t\xff", XAttrs: []tree.XAttr{{Name: "x\xff"}}}}
	check := func(name, text string) {
		t.Helper()
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if n := approximations(t, name, v); n == 0 {
			t.Errorf("%s shows no name that is an approximation:\n%s", name, text)
		}
	}
	status := agent.Status{Volumes: []agent.VolumeStatus{{Points: []string{"p\xff"}, Unseen: []snapshot.Unseen{{Paths: []string{"u\xff"}}}}}}
	kept := agent.Kept{Paths: []string{"p\xff"}, Mounts: []string{"m\xff"}, Uncovered: []capture.Uncovered{{Path: "u\xff"}},
		Volumes: []agent.KeptVolume{{Gaps: []snapshot.Gap{{Path: "g\xff"}}}}}
	for name, v := range map[string]any{
		"agent status": agentInfoOf(status), "snapshot list": snapshotInfoOf(kept),
		"volumes": volumeInfoOf(&v), "providers": candidateInfoOf(backup.Candidate{Volume: v}), "ls": entryOf("p\xff", &record),
	} {
		var b bytes.Buffer
		if err := (&env{stdout: &b}).print(v); err != nil {
			t.Fatal(err)
		}
		check(name, b.String())
	}
	if code := run(t.Context(), &env{stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv}, []string{"init"}); code != exitComplete {
		t.Fatalf("init exits with %d", code)
	}
	for _, args := range [][]string{
		{"backup", src, "--provider", "none", "--exclude", "left\xfc", "--exclude", "none\xfc"},
		{"backups"},
		{"ls", "latest:" + src, "-R"},
		{"restore", "latest", "--to", dir + "/out\xff", "--dry-run"},
		{"job", "show"},
		{"job", "log"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), &env{stdout: &out, stderr: &errs, getenv: os.Getenv}, append(args, "--json")); code != exitComplete {
			t.Fatalf("%q exits with %d: %s", args, code, errs.String())
		}
		check(strings.Join(args[:min(2, len(args))], " "), out.String())
	}
}

// approximations counts names that are no UTF-8, each of which must have its
// bytes beside it.
func approximations(t *testing.T, path string, v any) (n int) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += approximations(t, path+"[]", e)
		}
	case map[string]any:
		for k, e := range v {
			texts, raws := words(e), words(v[k+"_bytes"])
			switch {
			case k == "text" || k == "reason":
			case texts == nil:
				n += approximations(t, path+"."+k, e)
			case strings.Contains(strings.Join(texts, ""), "\ufffd"):
				n++
				for i, text := range texts {
					if len(raws) != len(texts) {
						t.Fatalf("%s.%s is %q, its bytes are %q", path, k, texts, raws)
					}
					raw, err := base64.StdEncoding.DecodeString(raws[i])
					if err != nil || strings.ToValidUTF8(string(raw), "\ufffd") != text {
						t.Errorf("%s.%s is %q, its bytes are %q", path, k, text, raws[i])
					}
				}
			}
		}
	}
	return n
}

// words are the strings of a value that is one or a list of them, else nil.
func words(v any) (all []string) {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	list, _ := v.([]any)
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil
		}
		all = append(all, s)
	}
	return all
}

// Every command says what it is for, with examples.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	seen := 0
	walk = func(c *cobra.Command) {
		seen++
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		var out, errs bytes.Buffer
		code := run(t.Context(), &env{stdout: &out, stderr: &errs, getenv: os.Getenv}, args)
		if text := out.String(); code != exitComplete || !strings.Contains(text, "Examples:\n  ") || !strings.Contains(text, c.CommandPath()) {
			t.Errorf("%q exits with %d:\n%s%s", args, code, text, errs.String())
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, c.CommandPath()) && c.Name() != "job" {
				t.Errorf("%s: the example %q is not of it", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&env{}))
	if seen < 22 {
		t.Errorf("only %d commands were seen", seen)
	}
}

// Errors that belong together are printed one a line, as text and as JSON.
func TestSayAll(t *testing.T) {
	err := fmt.Errorf("clean up: %w", errors.Join(problem.Newf(problem.ReleaseFailed, "a", "one"), problem.Newf(problem.ReleaseFailed, "b", "two\nlines")))
	for json, want := range map[bool]string{
		false: "stillpoint: clean up: a: one\nstillpoint: clean up: b: two\\nlines\n  release-failed: ",
		true:  `{"error":{"code":"release-failed","message":"clean up: a: one\nclean up: b: two\\nlines"}}` + "\n",
	} {
		var b bytes.Buffer
		(&env{stderr: &b, json: json}).say(err)
		if !strings.HasPrefix(b.String(), want) {
			t.Errorf("said\n%s\nwant\n%s", b.String(), want)
		}
	}
}

// Who is nobody, without a home, looks at volumes and providers all the same,
// and is told what the rest needs.
func TestWithoutHome(t *testing.T) {
	scratch.NeedRoot(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "stillpoint") // by its name it is main and not a test
	b, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, os.WriteFile(program, b, 0o755), os.Chmod(filepath.Dir(dir), 0o711)); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"volumes": "", "providers": "", "providers /": "", "clean --dry-run": "set STILLPOINT_STATE", "clean": "set STILLPOINT_STATE",
		"job list": "set STILLPOINT_STATE", "backup / --repo /none --provider none": "set STILLPOINT_STATE",
		"restore latest --repo /none --to /none --dry-run": "not-a-repository",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c := exec.CommandContext(ctx, program, strings.Fields(command)...)
		c.Dir, c.Env = "/", []string{"PATH=/bin"}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		cancel()
		if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

func TestProgressLine(t *testing.T) {
	tests := []struct {
		now, all done
		took     time.Duration
		want     string
	}{
		{done{10, 1 << 20}, done{}, time.Second, "stored 10 files, 1.00 MiB, 1.00 MiB/s"},
		{done{10, 1 << 30}, done{40, 4 << 30}, 10 * time.Second, "stored 10 files, 1.00 GiB of 4.00 GiB (25%), 102 MiB/s, 30s left"},
		// Few bytes are left, but most files: the files decide.
		{done{10, 3 << 30}, done{100, 3 << 30}, 10 * time.Second, "stored 10 files, 3.00 GiB of 3.00 GiB (100%), 307 MiB/s, 1m30s left"},
		// More than was expected: no total, no time left.
		{done{50, 5 << 30}, done{40, 4 << 30}, 10 * time.Second, "stored 50 files, 5.00 GiB, 512 MiB/s"},
	}
	for _, tt := range tests {
		if got := render("stored", tt.now, tt.all, tt.took); got != tt.want {
			t.Errorf("render(%v, %v, %v) = %q, want %q", tt.now, tt.all, tt.took, got, tt.want)
		}
	}
}

func TestModeText(t *testing.T) {
	for mode, want := range map[uint32]string{
		0o644: "-rw-r--r--", 0o4755: "-rwsr-xr-x", 0o2745: "-rwxr-Sr-x", 0o1777: "-rwxrwxrwt", 0o7000: "---S--S--T", 0: "----------",
	} {
		if got := modeText("file", mode); got != want {
			t.Errorf("modeText(%o) = %s, want %s", mode, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for name, want := range map[string]string{"plain": "plain", "two words": "two words", "a\nb": `"a\nb"`, "\x1b[2J": `"\x1b[2J"`, "\xff": `"\xff"`, "ä": "ä"} {
		if got := quote(name); got != want {
			t.Errorf("quote(%q) = %s, want %s", name, got, want)
		}
	}
}
