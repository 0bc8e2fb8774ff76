package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"stillpoint/internal/snapshot"
)

// A leaver is a provider of which a killed process has left something.
type leaver struct {
	snapshot.Provider
	left []snapshot.Snapshot
}

func (leaver) Name() string { return "leaver" }

func (l leaver) Leftovers(context.Context) ([]snapshot.Snapshot, error) {
	return l.left, errors.New("one is not ours")
}

// A chooser is one that has cache files.
type chooser struct {
	leaver
	snapshot.CacheChooser
}

func (chooser) Name() string { return "chooser" }

func (c chooser) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	return c.leaver.Leftovers(ctx)
}

// A left is what is left, until it is released.
type left struct {
	snapshot.Snapshot
	id       string
	released *[]string
}

func (l left) ID() string { return l.id }

func (l left) Release(context.Context) error {
	*l.released = append(*l.released, l.id)
	if l.id == "first" {
		return errors.New("not now")
	}
	return nil
}

// An agent that starts deletes what all providers have left, and first what has a cache
// file.
func TestUnburden(t *testing.T) {
	var released []string
	var log bytes.Buffer
	of := func(ids ...string) (l leaver) {
		for _, id := range ids {
			l.left = append(l.left, left{id: id, released: &released})
		}
		return l
	}
	r := &Resident{o: Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Providers: []snapshot.Provider{of("light"), chooser{leaver: of("first", "second")}}}}
	r.unburden(t.Context())
	if got := strings.Join(released, " "); got != "first second light" {
		t.Errorf("released: %s", got)
	}
	for _, want := range []string{"id=first provider=chooser error=\"not now\"", "id=second", "one is not ours"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	log.Reset()
	if r.unburden(over); log.Len() > 0 {
		t.Errorf("at the end it says\n%s", &log)
	}
}
