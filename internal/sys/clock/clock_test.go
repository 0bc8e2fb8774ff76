package clock

import "testing"

// How the clock is of the host of a test nobody knows, but it can be asked.
func TestSynchronised(t *testing.T) {
	if _, err := Synchronised(); err != nil {
		t.Error(err)
	}
}
