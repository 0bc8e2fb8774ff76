package lvm

import (
	"context"
	"os"
	"testing"

	"stillpoint/internal/guard"
	"stillpoint/internal/volume"
)

func TestMain(m *testing.M) {
	guard.Main(Duty())
	os.Exit(m.Run())
}

// hostTable is what is mounted on the machine of the tests.
func hostTable(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }
