package snapshottest

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
	"stillpoint/internal/tool"
)

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
	root, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// Somebody who is not this process thaws if it does not.
	thaw := tool.Command{Name: "sh", Args: []string{"-c", `sleep 5; fsfreeze --unfreeze "$1"`, "sh", v.Dir}}
	rescue, err := thaw.Start(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rescue.Wait()
	defer rescue.Kill()
	if err := freeze.Freeze(root); err != nil {
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
	if err := freeze.Thaw(root); err != nil {
		t.Fatalf("thawed by somebody else: %v", err)
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
	if want := numbered(make([]byte, slotSize), kinds); string(got[slotSize:2*slotSize]) != string(want) {
		t.Error("the file does not show what was stored")
	}
}
