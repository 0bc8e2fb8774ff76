package main

import (
	"bytes"
	"testing"
	"time"

	"stillpoint/internal/backup"
	"stillpoint/internal/problem"
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
		{"providers", candidateInfoOf(backup.Candidate{Volume: v, Provider: "btrfs", Err: problem.Newf(problem.NoProvider, "", "why")}), `{
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
