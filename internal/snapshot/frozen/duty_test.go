package frozen

import (
	"errors"
	"testing"
)

// Who has forgotten its file systems still has a guard, until Close.
func TestForget(t *testing.T) {
	h, _ := newHold(t, 1)
	if err := errors.Join(h.Bequeath("duty", "of something"), h.Suspend(t.Context())); err != nil {
		t.Error(err)
	}
	if _, err := h.Resume(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(h.Forget(), h.Bequeath("duty", "of something else"), h.Forget(), h.Close(), h.Forget(), h.Close()); err != nil {
		t.Error(err)
	}
}
