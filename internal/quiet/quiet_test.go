package quiet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/volume"
)

// A disk is a device that is written to until some time.
type disk struct {
	began time.Time
	until time.Duration
}

func (d disk) Open(name string) (fs.File, error) {
	n := time.Since(d.began).Milliseconds()
	if time.Since(d.began) > d.until {
		n = d.until.Milliseconds()
	}
	line := fmt.Sprintf("1 0 8 1 %d 0 %d 3 0 5 6 0 0 0 0 0 0\n", n, 8*n)
	return fstest.MapFS{"7:1/stat": &fstest.MapFile{Data: []byte(line)}}.Open(name)
}

func on(number string) []volume.Volume {
	return []volume.Volume{{ID: "ext4:x", Stack: []volume.Device{{Name: "loop1", Number: number}, {Name: "sda", Number: "8:0", Level: 1}}}}
}

// The wait ends when nobody has written for so long, and not before.
func TestWait(t *testing.T) {
	for _, tt := range []struct {
		until, quiet, timeout, ends time.Duration
		code                        problem.Code
	}{
		{0, 500 * time.Millisecond, time.Minute, 500 * time.Millisecond, ""},
		{3 * time.Second, 500 * time.Millisecond, time.Minute, 3500 * time.Millisecond, ""},
		{time.Hour, 500 * time.Millisecond, 30 * time.Second, 30 * time.Second, problem.NoQuietTime},
		{time.Hour, 0, 30 * time.Second, 0, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			err := wait(t.Context(), disk{began, tt.until}, on("7:1"), Options{For: tt.quiet, Timeout: tt.timeout})
			took := time.Since(began)
			if problem.CodeOf(err) != tt.code || took < tt.ends || took > tt.ends+100*time.Millisecond {
				t.Errorf("written to for %v: ended after %v, want %v: %v", tt.until, took, tt.ends, err)
			}
		})
	}
}

// What is cancelled says so, and volumes without a device are quiet.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stop := errors.New("stop")
		ctx, end := context.WithCancelCause(ctx)
		time.AfterFunc(100*time.Millisecond, func() { end(stop) })
		if err := wait(ctx, disk{time.Now(), time.Hour}, on("7:1"), Options{For: time.Second, Timeout: time.Minute}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := wait(t.Context(), disk{time.Now(), time.Hour}, on("9:9"), Options{For: time.Second, Timeout: time.Minute}); err != nil {
			t.Errorf("without a device: %v", err)
		}
	})
}

// Writes to a real volume are seen.
func TestRealDevice(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	found, _ := scratch.Find(t, v.Dir)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				f, err := os.OpenFile(filepath.Join(v.Dir, "file"), os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					return
				}
				_, _ = f.WriteString("x")
				_ = f.Sync()
				f.Close()
			}
		}
	}()
	err := Wait(t.Context(), []volume.Volume{found}, Options{For: 2 * time.Second, Timeout: 3 * time.Second})
	close(stop)
	<-stopped
	if !problem.Is(err, problem.NoQuietTime) {
		t.Errorf("while it is written to: %v", err)
	}
	if err := Wait(t.Context(), []volume.Volume{found}, Options{For: 200 * time.Millisecond, Timeout: time.Minute}); err != nil {
		t.Error(err)
	}
}
