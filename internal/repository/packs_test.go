package repository

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestPacksStayOpenForAWhile(t *testing.T) {
	dir := t.TempDir()
	path := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	for i := range 3 * packsOpen {
		if err := os.WriteFile(path(i), []byte(fmt.Sprint(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var p openPacks
	used, err := p.take(path(0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * packsOpen {
		o, err := p.take(path(i))
		if err != nil {
			t.Fatal(err)
		}
		p.give(o)
	}
	if len(p.open) > packsOpen+1 {
		t.Errorf("%d packs are open, wanted %d", len(p.open), packsOpen)
	}
	if again, err := p.take(path(0)); err != nil || again != used {
		t.Errorf("a pack in use was closed: %v", err)
	} else {
		p.give(again)
	}
	if _, err := used.f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Error(err)
	}
	p.give(used)
	p.close()
	if len(p.open) != 0 {
		t.Errorf("%d packs stay open", len(p.open))
	}
	if _, err := used.f.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("the file is still open")
	}
	if _, err := p.take(filepath.Join(dir, "missing")); !os.IsNotExist(err) {
		t.Errorf("a missing pack: %v", err)
	}
}
