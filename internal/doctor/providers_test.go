package doctor

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// sleeper is a provider that does not answer about one volume.
type sleeper struct {
	snapshot.Provider
	about volume.ID
	wakes chan struct{}
}

func (p sleeper) Name() string { return "sleeper" }

func (p sleeper) Check(_ context.Context, v volume.Volume) error {
	if v.ID == p.about {
		<-p.wakes
	}
	return nil
}

// Of a volume that does not answer nothing is known, but of all others.
func TestChooseDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := sleeper{about: "b", wakes: make(chan struct{})}
		defer close(p.wakes)
		s := Subject{Paths: []string{"/"}, Volumes: []volume.Volume{{ID: "b"}, {ID: "a"}, {ID: "c"}}}
		began := time.Now()
		fs := look(t, Providers(s, Choose(t.Context(), s, []snapshot.Provider{p})))
		if took := time.Since(began); took != usualLimit+grace {
			t.Errorf("took %s", took)
		}
		says(t, fs, Unknown, problem.LookFailed, "b", "no answer")
		says(t, fs, OK, "", "a", "sleeper takes it")
		says(t, fs, OK, "", "c", "sleeper takes it")
	})
}
