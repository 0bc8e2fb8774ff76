package notify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

var twoOClock = time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)

// notice is of a job that ended so.
func notice(status job.Status, code problem.Code) *Notice {
	r := &job.Report{
		Job: "3fk2m5xq7a", Kind: job.Backup, Status: status, Level: job.FileSystem, Code: code, Backup: "3fk2m5xq7a",
		Started: twoOClock, Ended: twoOClock.Add(192 * time.Second), Took: job.Millis(192 * time.Second),
		Volumes: []job.VolumeReport{{ID: "a", Mounts: []string{"/srv/\xff"}, Provider: "cow", Hold: job.Millis(38 * time.Millisecond)}, {ID: "b", Hold: job.Millis(time.Millisecond)}},
		Applications: []job.ApplicationReport{
			{ID: "redis:1", AtRest: true, Rested: job.Millis(61 * time.Millisecond)},
		},
		Total: job.Counts{Files: 100012, Bytes: 4 << 30, BytesRead: 1 << 30, BytesStored: 1 << 20},
	}
	if status == job.CompleteWithExceptions {
		r.Exceptions = []job.Exceptions{{Code: code, Count: 3, Names: []string{"/srv/a"}}}
	}
	return &Notice{
		Header: job.Header{ID: r.Job, Kind: job.Backup, Host: "mail.example", Version: "0.3"}, Report: r,
		Page: func() ([]byte, error) { return []byte("<!DOCTYPE html>the page"), nil },
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put makes a file that holds a secret.
func put(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func TestOccasions(t *testing.T) {
	all := []job.Status{job.Complete, job.CompleteWithExceptions, job.Failed, job.Cancelled}
	for on, want := range map[Occasion]string{Success: "1100", Exceptions: "0100", Failure: "0011", Always: "1111", "": "1111"} {
		e, got := Entry{}, ""
		if on != "" {
			e.On = []Occasion{on}
		}
		for _, s := range all {
			got += map[bool]string{true: "1", false: "0"}[e.Concerns(&job.Report{Kind: job.Backup, Status: s})]
		}
		if got != want {
			t.Errorf("%s: %s, want %s", on, got, want)
		}
	}
	for kind, want := range map[job.Kind]bool{job.Backup: true, job.Verify: true, job.Restore: false, job.Clean: false} {
		if got := (Entry{}).Concerns(&job.Report{Kind: kind, Status: job.Failed}); got != want {
			t.Errorf("%s: %t", kind, got)
		}
	}
	if !(Entry{Kinds: []job.Kind{job.Clean}}).Concerns(&job.Report{Kind: job.Clean}) {
		t.Error("kinds are not looked at")
	}
}

type notifierFunc func(context.Context, *Notice) error

func (f notifierFunc) Notify(ctx context.Context, n *Notice) error { return f(ctx, n) }
func (notifierFunc) About() string                                 { return "a test" }

// Nobody who is told holds up the others, or the job, for longer than his limit.
func TestHungIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := make(chan struct{})
		began := time.Now()
		results := Tell(t.Context(), []Entry{
			{Name: "well", Notifier: notifierFunc(func(context.Context, *Notice) error { return nil })},
			{Name: "hangs", Notifier: notifierFunc(func(ctx context.Context, _ *Notice) error { <-ctx.Done(); return ctx.Err() })},
			{Name: "deaf", Limit: 5 * time.Second, Notifier: notifierFunc(func(context.Context, *Notice) error { <-deaf; return nil })},
			{Name: "fails", Notifier: notifierFunc(func(context.Context, *Notice) error { return errors.New("refused") })},
		}, notice(job.Complete, ""))
		if took := time.Since(began); took != Limit {
			t.Errorf("took %s", took)
		}
		close(deaf)
		for i, want := range []string{"", "hangs: not done within 1m0s", "deaf: not done within 5s", "fails: refused"} {
			err := results[i].Err
			if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: %v", results[i].Entry.Name, err)
			}
			if err != nil && problem.CodeOf(err) != problem.NotifyFailed {
				t.Errorf("%s: code %s", results[i].Entry.Name, problem.CodeOf(err))
			}
		}
	})
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "hook")
	must(t, os.WriteFile(script, []byte(`#!/bin/sh
cat >"$1/stdin"
env | grep '^STILLPOINT_' | grep -v REPORT | sort >"$1/env"
cp "$STILLPOINT_REPORT" "$1/page"
echo "$STILLPOINT_REPORT" >"$1/where"
`), 0o700))
	n := notice(job.CompleteWithExceptions, problem.FileUnreadable)
	n.Name = "nightly"
	must(t, Command{Line: []string{script, dir}}.Notify(t.Context(), n))
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return string(b)
	}
	if got := read("stdin"); !strings.Contains(got, `"status": "complete-with-exceptions"`) || !strings.Contains(got, `"hold_ms": 38`) {
		t.Errorf("stdin is %s", got)
	}
	if got, want := read("env"), `STILLPOINT_BACKUP=3fk2m5xq7a
STILLPOINT_CODE=file-unreadable
STILLPOINT_EXCEPTIONS=3
STILLPOINT_HOST=mail.example
STILLPOINT_JOB=3fk2m5xq7a
STILLPOINT_JOB_NAME=nightly
STILLPOINT_KIND=backup
STILLPOINT_LEVEL=filesystem
STILLPOINT_SECONDS=192.000
STILLPOINT_STATUS=complete-with-exceptions
STILLPOINT_TEXT=
`; got != want {
		t.Errorf("environment is\n%s", got)
	}
	if got := read("page"); !strings.HasSuffix(got, "the page") {
		t.Errorf("page is %q", got)
	}
	if _, err := os.Stat(strings.TrimSpace(read("where"))); err == nil {
		t.Error("the page was left behind")
	}
	err := Command{Line: []string{"sh", "-c", "echo wrong >&2; exit 7"}}.Notify(t.Context(), n)
	if err == nil || !strings.Contains(err.Error(), "exit status 7: wrong") {
		t.Errorf("a program that fails: %v", err)
	}
	began := time.Now()
	results := Tell(t.Context(), []Entry{{Name: "slow", Limit: 200 * time.Millisecond, Notifier: Command{Line: []string{"sleep", "600"}}}}, n)
	if took := time.Since(began); took > time.Minute || results[0].Err == nil || !strings.Contains(results[0].Err.Error(), "not done within 200ms") {
		t.Errorf("after %s: %v", took, results[0].Err)
	}
}
