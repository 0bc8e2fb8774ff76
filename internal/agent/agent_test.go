package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/problem"
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

// What was known of a snapshot stays known when the agent is gone, by which it is lost.
func TestGone(t *testing.T) {
	c := serve(t, fake.New(t.TempDir(), fake.Options{}))
	pending, err := c.Prepare(t.Context(), "set", []snapshot.Target{{Volume: fake.Volume(t.TempDir()), Paths: []string{"."}}})
	if err != nil {
		t.Fatal(err)
	}
	err = pending.Hold(t.Context())
	snaps, cerr := pending.Commit(t.Context())
	if err := errors.Join(err, cerr, pending.Resume(t.Context())); err != nil {
		t.Fatal(err)
	}
	before := snaps[0].Parts()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); snaps[0].Err() == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // it learns of the end
	}
	if err := snaps[0].Err(); problem.CodeOf(err) != problem.SnapshotLost {
		t.Errorf("it says %v", err)
	}
	if after := snaps[0].Parts(); len(before) != 1 || !reflect.DeepEqual(after, before) {
		t.Errorf("before: %+v, after: %+v", before, after)
	}
}

// An agent for one run that is gone is named with how it has ended.
func TestEnded(t *testing.T) {
	c, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Check(t.Context(), fake.Volume(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	own := 0
	for _, pid := range childrenOf(t, os.Getpid()) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.HasPrefix(string(b), programName) {
			own = pid
		}
	}
	if own == 0 {
		t.Fatal("it is no child of ours")
	}
	if err := syscall.Kill(own, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err = c.Check(t.Context(), fake.Volume(t.TempDir()))
	if problem.CodeOf(err) != problem.SnapshotLost || !strings.Contains(err.Error(), programName+": signal: killed") {
		t.Errorf("it says %v", err)
	}
}

func childrenOf(t *testing.T, pid int) (all []int) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		b, _ := os.ReadFile(name) // the thread may have ended
		for _, f := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	return all
}
