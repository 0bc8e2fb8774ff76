package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"stillpoint/internal/agent"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
)

// The contract holds through an agent, where another process reads the live
// files.
func TestSuiteThroughAgent(t *testing.T) {
	h := suiteHost("ext4")
	h.New = func(tb testing.TB) snapshot.Provider {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
		if err != nil {
			tb.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- agent.NewServer(New(host, Options{})).Serve(ctx, l) }()
		c, err := agent.Dial(tb.Context(), l.Addr().String(), "")
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			c.Close()
			cancel()
			if err := <-ended; err != nil {
				tb.Error(err)
			}
		})
		return c
	}
	for _, name := range []string{"state", "selected-paths", "two-readings", "open-reader"} {
		t.Run(name, func(t *testing.T) { snapshottest.RunCheck(t, h, name) })
	}
}

// lenderVariable is set in the child of TestDirectHolderDies, to the abstract
// address that it listens on.
const lenderVariable = "STILLPOINT_TEST_LENDER"

// TestLender is a process that is an agent until it is ended.
func TestLender(t *testing.T) {
	address := os.Getenv(lenderVariable)
	if address == "" {
		return // is run by TestDirectHolderDies only
	}
	l, err := net.Listen("unix", address)
	if err == nil {
		fmt.Println("ready")
		err = agent.NewServer(New(host, Options{})).Serve(context.Background(), l)
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// The process that holds the snapshot is killed while another one reads: from
// then on nothing that it could not have verified is good, and the snapshot is
// lost.
func TestDirectHolderDies(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.variety()
		address := fmt.Sprintf("@stillpoint-test-%d-%s", os.Getpid(), filepath.Base(r.dir))
		c := exec.Command(os.Args[0], "-test.run=^TestLender$")
		c.Env = append(os.Environ(), lenderVariable+"="+address)
		out, err := c.StdoutPipe()
		r.must(err)
		r.must(c.Start())
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		ready := make([]byte, 6)
		if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
			t.Fatalf("the agent says %q, %v", ready, err)
		}
		client, err := agent.Dial(t.Context(), address, "")
		r.must(err)
		defer client.Close()
		pending, err := client.Prepare(t.Context(), "dies", []snapshot.Target{r.target})
		r.must(err)
		r.must(pending.Hold(t.Context()))
		snaps, err := pending.Commit(t.Context())
		r.must(errors.Join(err, pending.Resume(t.Context())))
		d := r.reader(snaps[0].(snapshot.Readable))
		want := bytes.Repeat([]byte("changes!"), 100_000)
		changed, same, saved := r.open(d, "changes"), r.open(d, "plain"), r.open(d, "shrinks")
		got := make([]byte, len(want))
		_, err = changed.ReadAt(got, 0)
		r.must(err)
		r.must(os.Truncate(r.path("shrinks"), 5))

		r.must(c.Process.Kill())
		_ = c.Wait()
		r.alter()
		if err := changed.Verify(); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("verify what changed after the death: %v", err)
		}
		for n, f := range []snapshot.Content{changed, saved, same} {
			b := make([]byte, 4096)
			_, err := f.ReadAt(b, 0)
			if err == nil {
				err = f.Verify()
			}
			if !problem.Is(err, problem.SnapshotLost) {
				t.Errorf("read file %d after the death: %v", n, err)
			}
		}
		if _, err := d.List(2); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("list after the death: %v", err)
		}
		if err := snaps[0].Err(); !problem.Is(err, problem.SnapshotLost) {
			t.Errorf("Err is %v", err)
		}
	})
}
