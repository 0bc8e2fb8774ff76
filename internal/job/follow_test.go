package job

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// follow follows a job in the background; what it is told comes out of texts.
func follow(t *testing.T, dir, id string) (texts chan string, end func() (Summary, *Report, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	texts = make(chan string, 1000)
	type result struct {
		s   Summary
		r   *Report
		err error
	}
	ended := make(chan result, 1)
	go func() {
		s, r, err := Follow(ctx, dir, id, func(_ []byte, e *Event) error {
			if e != nil {
				texts <- e.Text
			}
			return nil
		})
		ended <- result{s, r, err}
	}()
	return texts, func() (Summary, *Report, error) { r := <-ended; return r.s, r.r, r.err }
}

func next(t *testing.T, texts chan string) string {
	t.Helper()
	select {
	case text := <-texts:
		return text
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is told")
		return ""
	}
}

// Who follows a job is told what is written while it runs, and ends when it does.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(dir, Start{Kind: Backup, Version: "test", Name: "nightly", RetryOf: "abc", Settings: map[string][]string{"paths": {"/srv", "/a\xff"}}})
	if err != nil {
		t.Fatal(err)
	}
	texts, end := follow(t, dir, l.ID()[:6])
	if text := next(t, texts); !strings.HasPrefix(text, "settings: paths: /srv, ") {
		t.Error(text)
	}
	for _, text := range []string{"one", "two"} {
		if err := l.Add(Event{Step: StepStore, Text: text}); err != nil {
			t.Fatal(err)
		}
		if got := next(t, texts); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
	if err := l.Close(&Report{Status: Complete}); err != nil {
		t.Fatal(err)
	}
	s, r, err := end()
	if err != nil || r == nil || s.Status != Complete || s.Name != "nightly" || s.RetryOf != "abc" {
		t.Errorf("%+v, %+v, %v", s, r, err)
	}
	j, err := Load(dir, l.ID())
	if err != nil {
		t.Fatal(err)
	}
	settings, err := j.Settings()
	if err != nil || len(settings["paths"]) != 2 || settings["paths"][1] != "/a\xff" {
		t.Errorf("%q, %v", settings, err)
	}
}

// It ends, too, when the job dies, and when nobody wants to know any more.
func TestFollowDead(t *testing.T) {
	dir := t.TempDir()
	cmd, out := child(t, "write", dir)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	texts, end := follow(t, dir, strings.TrimSpace(line))
	if text := next(t, texts); text != "about to take a" {
		t.Error(text)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Follow(ctx, dir, strings.TrimSpace(line), func([]byte, *Event) error { return nil }); !problem.Is(err, problem.Cancelled) {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s, r, err := end()
	if err != nil || r != nil || s.Status != Died || s.Code != problem.JobDied {
		t.Errorf("%+v, %+v, %v", s, r, err)
	}
	_ = cmd.Wait()
	if _, _, err := Follow(context.Background(), dir, "zzzz", nil); !problem.Is(err, problem.NoSuchJob) {
		t.Error(err)
	}
	stop := errors.New("stop")
	if _, _, err := Follow(context.Background(), dir, s.ID, func([]byte, *Event) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}
