package cow

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// A volume in a file of another one, both in one set: frozen in the right
// order, and both of one instant.
func TestVolumeOnVolume(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		image := r.path("image")
		for _, c := range [][]string{{"truncate", "-s", "64M", image}, {"mkfs.ext4", "-q", image}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v %s", c, err, out)
			}
		}
		out, err := exec.Command("losetup", "--find", "--show", image).Output()
		r.must(err)
		device := strings.TrimSpace(string(out))
		inner := t.TempDir()
		t.Cleanup(func() {
			_ = exec.Command("umount", inner).Run()
			_ = exec.Command("losetup", "--detach", device).Run()
		})
		r.must(exec.Command("mount", device, inner).Run())
		r.must(os.WriteFile(filepath.Join(inner, "file"), []byte("inner"), 0o644))
		r.must(os.WriteFile(r.path("file"), []byte("outer"), 0o644))
		found, _ := scratch.Find(t, inner)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, ts := range [][]snapshot.Target{
			{r.target, {Volume: found, Paths: []string{"."}}},
			{{Volume: found, Paths: []string{"."}}, r.target},
		} {
			ids++
			pending, err := r.p.Prepare(ctx, "order"+itoa(ids), ts)
			r.must(err)
			err = pending.Hold(ctx)
			var snaps []snapshot.Snapshot
			if err == nil {
				snaps, err = pending.Commit(ctx)
			}
			r.must(pending.Resume(ctx))
			r.must(err)
			r.must(os.WriteFile(filepath.Join(inner, "file"), []byte("INNER"), 0o644))
			r.must(os.WriteFile(r.path("file"), []byte("OUTER"), 0o644))
			for _, s := range snaps {
				b, err := os.ReadFile(s.Root() + "/file")
				r.must(err)
				if !bytes.Equal(b, bytes.ToLower(b)) {
					t.Errorf("%s shows %q", s.Volume(), b)
				}
				r.must(s.Err())
				r.must(s.Release(ctx))
			}
			r.must(os.WriteFile(filepath.Join(inner, "file"), []byte("inner"), 0o644))
			r.must(os.WriteFile(r.path("file"), []byte("outer"), 0o644))
		}
	})
}
