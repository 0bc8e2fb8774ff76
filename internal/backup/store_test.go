package backup

import (
	"testing"
	"time"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A source is of the instant of its snapshots though parts of it are read live:
// what changed since must not pass for unchanged.
func TestInstant(t *testing.T) {
	at, now := time.Unix(1000, 0), time.Unix(2000, 0)
	b := &backing{
		run: &run{e: &Engine{Now: func() time.Time { return now }}},
		cap: &capture{snaps: map[volume.ID]snapshot.Snapshot{"snapped": struct{ snapshot.Snapshot }{}}},
		at:  at,
	}
	on := func(id volume.ID) place { return place{volume: volume.Volume{ID: id}} }
	for name, tt := range map[string]struct {
		s    source
		want time.Time
	}{
		"snapshot":              {source{place: on("snapped")}, at},
		"live":                  {source{place: on("live")}, now},
		"snapshot, part live":   {source{place: on("snapped"), grafts: []graft{{place: on("live")}}}, at},
		"live, part snapshot":   {source{place: on("live"), grafts: []graft{{place: on("snapped")}}}, at},
		"live, part left empty": {source{place: on("live"), grafts: []graft{{place: on("snapped"), empty: true}}}, now},
	} {
		if got := b.instant(tt.s); !got.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
