package main

import (
	"bytes"
	"testing"
	"time"

	"stillpoint/internal/agent"
	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// TestAgentJSON fixes the output of `agent status` and `snapshot list`.
func TestAgentJSON(t *testing.T) {
	tests := []struct {
		v    any
		want string
	}{
		{agentInfoOf(agent.Status{
			PID: 1, Version: "v", Started: time.Unix(0, 0), Holder: &agent.HolderStatus{PID: 8, Unlocked: "r"},
			Volumes: []agent.VolumeStatus{{
				Volume: "u", Type: "ext4", Points: []string{"/srv"}, Provider: "cow", Watched: true, Since: time.Unix(1, 0), Inherited: true, Armed: true, Events: 20, PerSecond: 2.5,
				Unseen: []snapshot.Unseen{{PID: 7, Program: "p", Kind: "mapping", Files: 1, Paths: []string{"/srv/f"}, Advice: "a"}},
			}},
			Snapshots: []agent.Held{
				{ID: "s/u", Volume: "u", Provider: "cow", Taken: time.Unix(1, 5), Kept: "s", Cache: &snapshot.Cache{Dir: "/var/cache", Used: 1, Maximum: 2}},
				{ID: "t/v", Volume: "v", Provider: "btrfs", Client: 9, Code: problem.SnapshotLost, Reason: "why"},
			},
		}), `{
  "pid": 1,
  "version": "v",
  "started": "1970-01-01T00:00:00Z",
  "holder": 8,
  "memory_locked": false,
  "memory_reason": "r",
  "volumes": [
    {
      "volume": "u",
      "type": "ext4",
      "mounts": [
        "/srv"
      ],
      "provider": "cow",
      "state": "armed",
      "watched": true,
      "since": "1970-01-01T00:00:01Z",
      "inherited": true,
      "events": 20,
      "events_per_second": 2.5,
      "unseen": [
        {
          "pid": 7,
          "program": "p",
          "kind": "mapping",
          "files": 1,
          "paths": [
            "/srv/f"
          ],
          "text": "a"
        }
      ]
    }
  ],
  "snapshots": [
    {
      "id": "s/u",
      "volume": "u",
      "provider": "cow",
      "taken": "1970-01-01T00:00:01.000000005Z",
      "snapshot": "s",
      "state": "good",
      "cache": {
        "dir": "/var/cache",
        "used": 1,
        "maximum": 2
      }
    },
    {
      "id": "t/v",
      "volume": "v",
      "provider": "btrfs",
      "taken": "0001-01-01T00:00:00Z",
      "client": 9,
      "state": "lost",
      "code": "snapshot-lost",
      "reason": "why",
      "cache": null
    }
  ]
}
`},
		{snapshotInfoOf(agent.Kept{
			ID: "s", Taken: time.Unix(1, 0), Paths: []string{"/srv"}, Mounts: []string{"/mnt"},
			Volumes: []agent.KeptVolume{{
				Volume: "u", Provider: "cow", Code: problem.CacheFull, Reason: "why", Held: 1500 * time.Microsecond,
				Cache: &snapshot.Cache{Dir: "/var/cache", Used: 2, Maximum: 2}, Gaps: []snapshot.Gap{{Path: "f", Code: problem.FileGone, Reason: "r"}},
			}},
			Uncovered:    []capture.Uncovered{{Path: "/srv/tmp", Type: "tmpfs", Reason: "memory file system"}},
			Applications: []agent.KeptApplication{{ID: "db:1", Code: problem.WriterFailed, Reason: "no"}},
		}), `{
  "id": "s",
  "taken": "1970-01-01T00:00:01Z",
  "paths": [
    "/srv"
  ],
  "state": "lost",
  "volumes": [
    {
      "volume": "u",
      "provider": "cow",
      "state": "lost",
      "code": "cache-full",
      "reason": "why",
      "held_ms": 1.5,
      "cache": {
        "dir": "/var/cache",
        "used": 2,
        "maximum": 2
      },
      "gaps": [
        {
          "path": "f",
          "code": "file-gone",
          "reason": "r"
        }
      ]
    }
  ],
  "uncovered": [
    {
      "path": "/srv/tmp",
      "type": "tmpfs",
      "reason": "memory file system"
    }
  ],
  "applications": [
    {
      "id": "db:1",
      "at_rest": false,
      "code": "writer-failed",
      "reason": "no"
    }
  ],
  "mounts": [
    "/mnt"
  ]
}
`},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if err := (&env{stdout: &b}).print(tt.v); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}
