package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// Who does not come back with what is mounted is left behind, in time, and told apart
// from who says why not.
func TestRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		began := time.Now()
		_, err := Read(t.Context(), func(context.Context) (Subject, error) { <-forever; return Subject{}, nil })
		if !problem.Is(err, problem.LookFailed) || time.Since(began) != readLimit {
			t.Errorf("one that hangs: %v after %s", err, time.Since(began))
		}
		fs := Run(t.Context(), []Check{Volumes(nil, err)})
		if len(fs) != 1 || fs[0].Result != Unknown || fs[0].Code != problem.LookFailed || fs[0].Check != "volumes" || !strings.Contains(fs[0].Text, "20s") {
			t.Errorf("%+v", fs)
		}
		_, err = Read(t.Context(), func(ctx context.Context) (Subject, error) { <-ctx.Done(); return Subject{}, ctx.Err() })
		if !problem.Is(err, problem.LookFailed) {
			t.Errorf("one that listens: %v", err)
		}
		gone := problem.New(problem.PathMissing, "/x", os.ErrNotExist)
		if _, err := Read(t.Context(), func(context.Context) (Subject, error) { return Subject{}, gone }); !errors.Is(err, gone) {
			t.Errorf("one that fails: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Read(ctx, func(context.Context) (Subject, error) { <-forever; return Subject{}, nil }); !errors.Is(err, context.Canceled) || problem.Is(err, problem.LookFailed) {
			t.Errorf("one that was cancelled: %v", err)
		}
	})
}

// mute is a host whose one volume tells nothing.
type mute struct {
	silent
	why error
}

func (m mute) FileSystem(string, int) (volume.Facts, error) { return volume.Facts{}, m.why }

// A volume that says nothing is named.
func TestVolumes(t *testing.T) {
	dir := t.TempDir()
	proc := filepath.Join(dir, "proc", "self")
	if err := errors.Join(os.MkdirAll(proc, 0o755), os.WriteFile(proc+"/mountinfo", []byte("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for why, advice := range map[error]string{errors.New("no answer"): "kernel's log", os.ErrPermission: "run it as root"} {
		table, err := volume.Read(t.Context(), volume.Roots{Proc: filepath.Dir(proc), Sys: dir, Dev: dir, Udev: dir, Probe: mute{why: why}})
		if err != nil {
			t.Fatal(err)
		}
		fs := Run(t.Context(), []Check{Volumes(table, nil)})
		if len(fs) == 0 || fs[0].Result != Unknown || fs[0].Code != problem.LookFailed || !strings.Contains(fs[0].Text, "sizes of /: "+why.Error()) || !strings.Contains(fs[0].Advice, advice) {
			t.Errorf("%+v", fs)
		}
	}
}
