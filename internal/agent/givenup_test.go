package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"stillpoint/internal/capture"
	"stillpoint/internal/coordinator"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/sys/mount"
)

// A kept snapshot that is given up is shown nowhere any more: a mount would keep what
// it has.
func TestGivenUpIsUnmounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	src, dir := t.TempDir(), t.TempDir()
	p, v := fake.New(t.TempDir(), fake.Options{}), fake.Volume(src)
	pending, err := p.Prepare(t.Context(), "kept", []snapshot.Target{{Volume: v, Paths: []string{"."}}})
	must(err)
	snaps, err := pending.Commit(t.Context())
	must(err)
	m, err := mount.Open("tmpfs", nil, 0)
	must(err)
	defer m.Close()
	must(os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/shown", m.Fd()), nil, 0o600))
	id, err := mount.ID(m)
	must(err)
	must(mount.AttachAt(m, dir))
	ns, err := mount.Namespace(os.Getpid())
	must(err)
	t.Cleanup(func() { _ = mount.Unmount(ns, dir, id) })
	st := &store{sets: []*kept{{
		set:    &capture.Set{Plan: &capture.Plan{}, Capture: &coordinator.Capture{Snapshots: []coordinator.Taken{{Snapshot: snaps[0]}}}, Applications: &quiesce.Applications{}},
		mounts: []attached{{mounted{dir, []uint64{id}}, ns}},
	}}}
	shown := func() bool {
		_, err := os.Stat(filepath.Join(dir, "shown"))
		return err == nil
	}
	if lost := st.newlyLost(); len(lost) > 0 || !shown() {
		t.Errorf("%d are lost, it is shown: %v", len(lost), shown())
	}
	p.GiveUp(v.ID, problem.Newf(problem.PoolFull, "", "planned"))
	if lost := st.newlyLost(); len(lost) != 1 || shown() || len(lost[0].Mounts) > 0 {
		t.Errorf("given up: %+v are lost, it is shown: %v", lost, shown())
	}
	must(st.end(t.Context()))
}
