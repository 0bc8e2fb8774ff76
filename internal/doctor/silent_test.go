package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/scratch"
)

// Nobody enters what a server has that does not answer, or a disk, wherever it is
// mounted: what can be looked into, is.
func TestSilentMounts(t *testing.T) {
	v := scratch.New(t, "ext4", 64*mib)
	server, disk := filepath.Join(v.Dir, "a-server"), filepath.Join(v.Dir, "b-disk")
	must(t, os.Mkdir(server, 0o755), os.Mkdir(disk, 0o755), os.WriteFile(v.Dir+"/old.bkf", make([]byte, mib), 0o600))
	loop := strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image(t)))
	t.Cleanup(func() { scratch.Run(t, "losetup", "--detach", loop) })
	scratch.Silent(t, "me@host:/srv", server, "fuse.sshfs")
	scratch.Silent(t, loop, disk, "fuseblk")

	s := subject(t, v.Dir)
	if got := s.Entered(); !slices.Equal(got, []string{v.Dir}) {
		t.Errorf("looked into are %q", got)
	}
	began := time.Now()
	says(t, look(t, Volumes(s.Table, nil)), Unknown, problem.LookFailed, "", disk)
	says(t, look(t, Others(s)), Warning, problem.BackupInside, v.Dir+"/old.bkf")
	healthy(t, look(t, Fragments(s, nil)))
	for _, dir := range []string{server, disk} {
		s := s
		s.Paths, s.barred = []string{dir}, map[string]bool{dir: true} // as NewSubject finds, which waits for a lookup
		asked := Applications(s, func(context.Context) ([]*quiesce.Application, error) {
			t.Errorf("%s: applications are looked for", dir)
			return nil, nil
		})
		healthy(t, slices.Concat(look(t, Others(s)), look(t, Fragments(s, nil)), look(t, asked)))
	}
	if took := time.Since(began); took > usualLimit {
		t.Errorf("it took %s", took)
	}
	s = subject(t, disk)
	if got := s.Entered(); len(got) != 0 {
		t.Errorf("looked into are %q", got)
	}
}

// image is a file for a disk.
func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, make([]byte, mib), 0o600))
	return path
}
