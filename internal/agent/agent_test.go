package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

// serve starts a server in this process and returns a client of it.
func serve(tb testing.TB, p snapshot.Provider) *Client {
	tb.Helper()
	address := filepath.Join(tb.TempDir(), "socket")
	l, err := net.Listen("unix", address)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(p).Serve(ctx, l) }()
	c, err := Dial(tb.Context(), address, p.Name())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("serve: %v", err)
		}
	})
	return c
}

const storeVariable = "STILLPOINT_FAKE_STORE"

// The contract holds through the agent as it does for the provider itself.
func TestSuite(t *testing.T) {
	store := os.Getenv(storeVariable) // in a child of this test
	if store == "" {
		store = t.TempDir()
	}
	gate := &fake.Gate{}
	snapshottest.Run(t, snapshottest.Host{
		New: func(tb testing.TB) snapshot.Provider {
			return serve(tb, fake.New(store, fake.Options{Gate: gate}))
		},
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			var vs []snapshottest.Volume
			for i := range n {
				dir := filepath.Join(tb.TempDir(), fmt.Sprint("volume", i))
				if err := os.Mkdir(dir, 0o755); err != nil {
					tb.Fatal(err)
				}
				vs = append(vs, snapshottest.Volume{Dir: dir, Volume: fake.Volume(dir)})
			}
			return vs
		},
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "far", Kind: volume.Network, FSType: "nfs", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
		Write: gate.Write,
		Env:   []string{storeVariable + "=" + store},
		Known: map[string]string{"read-only": "the copies are plain directories"},
	})
}

func TestMain(m *testing.M) {
	guard.Main()
	holder.Main()
	heirsMain()
	Main(func() snapshot.Provider { return fake.New(os.Getenv(storeVariable), fake.Options{}) })
	os.Exit(m.Run())
}
