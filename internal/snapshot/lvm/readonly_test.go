//go:build vm

package lvm

import (
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

// A volume that went read-only by an error has what is not in its place in its journal: it
// is left to dm before anything is made. One that was made read-only is taken. (Kernels of
// today refuse to freeze the former, so what older ones show of it is made up.)
func TestReadOnlyByAnError(t *testing.T) {
	thin, bare := newGroup(t, 300), newBare(t, 700)
	p := New(hostTable)
	for what, v := range map[string]snapshottest.Volume{"thin": thin.thin(t, "a", "ext4"), "classic": bare.thick(t, "a", "ext4", 400)} {
		takes := p.Check
		if what == "classic" {
			takes = named{p}.Check
		}
		now := func() volume.Volume {
			is, _ := scratch.Find(t, v.Dir)
			return is
		}
		scratch.Run(t, "mount", "-o", "remount,ro", v.Dir)
		if err := takes(t.Context(), now()); err != nil {
			t.Errorf("%s, made read-only: %v", what, err)
		}
		scratch.Run(t, "mount", "-o", "remount,rw", v.Dir)
		byError := now()
		byError.Options = append(slices.Clone(byError.Options), "ro") // with a journal in use
		if err := takes(t.Context(), byError); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "dm has one") {
			t.Errorf("%s, read-only by an error: %v", what, err)
		}
		if _, err := p.Prepare(t.Context(), "error", []snapshot.Target{{Volume: byError, Paths: []string{"."}}}); problem.CodeOf(err) != problem.NoProvider {
			t.Errorf("%s, prepare: %v", what, err)
		}
	}
}
