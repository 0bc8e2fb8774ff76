package lvm

import (
	"os"
	"testing"

	"stillpoint/internal/guard"
)

func TestMain(m *testing.M) {
	guard.Main(Duty())
	os.Exit(m.Run())
}
