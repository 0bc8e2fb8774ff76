package snapshottest

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/frozen"
)

func TestMain(m *testing.M) {
	guard.Main()
	os.Exit(m.Run())
}

// While a store waits for the thaw, this process goes on: it collects garbage, which all
// of its threads have to come to rest for.
func TestMapper(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	name := filepath.Join(v.Dir, "file")
	if err := os.WriteFile(name, make([]byte, slots*slotSize), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := startMapper(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer m.end()
	root, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h, err := frozen.New([]frozen.System{{Root: root, Name: v.Dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := make(chan error, 1)
	go func() { stored <- m.store(kinds) }()
	select {
	case err := <-stored:
		t.Errorf("the store did not wait for the thaw: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	runtime.GC()
	if _, err := h.Resume(); err != nil { // the guard was faster
		t.Fatal(err)
	}
	if err := <-stored; err != nil {
		t.Error(err)
	}
	if err := m.close(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want := numbered(make([]byte, slotSize), kinds); !bytes.Equal(got[slotSize:2*slotSize], want) {
		t.Error("the file does not show what was stored")
	}
}
