package snapshottest

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A provider without a guard, though it should have one, is noticed.
func TestNoGuard(t *testing.T) {
	if inChild() {
		Run(t, flawedHost("", os.Getenv(storeVariable)))
		return
	}
	was := guardPatience
	guardPatience = time.Second
	defer func() { guardPatience = was }()
	for _, name := range []string{"guard", "exited", "stopped"} {
		h := flawedHost("", t.TempDir())
		h.Guarded = true
		i := slices.IndexFunc(checks(), func(k check) bool { return k.name == name })
		failures := record(t, func(tb testing.TB) { checks()[i].on(tb, h) })
		if !strings.Contains(strings.Join(failures, "\n"), "nobody has taken away") {
			t.Errorf("%s does not notice: %v", name, failures)
		}
	}
}
