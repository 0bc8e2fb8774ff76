package backup

import (
	"fmt"
	"os"
	"testing"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// A repository that cannot be written, because its file system is read-only or
// full, is listed, verified and restored all the same, however many backups
// there are: kopia would join their records first.
func TestRepositoryReadOnly(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.must(os.RemoveAll(r.repo))
	small(t, r.path("small"), 32)
	r.repo = r.path("small/repo")
	r.create()
	r.some()
	fill := func() {
		f, err := os.Create(r.path("small/filler"))
		r.must(err)
		for b := make([]byte, 4096); err == nil; {
			_, err = f.Write(b)
		}
		f.Close()
	}
	for i := range 18 {
		r.write("src/counter", fmt.Sprint(i))
		r.backup(Options{})
		if i < 12 {
			continue
		}
		command(t, "mount", "-o", "remount,ro", r.path("small"))
		if n := len(r.list()); n != i+1 {
			t.Errorf("read-only: %d backups are listed, want %d", n, i+1)
		}
		if i == 15 {
			r.sound()
			r.same(r.path("src"), r.restore("latest"))
			rep, err := r.try(Options{})
			r.wantCode(err, problem.RepositoryLost)
			r.wantStatus(rep, job.Failed, problem.RepositoryLost)
		}
		command(t, "mount", "-o", "remount,rw", r.path("small"))
		fill()
		if n := len(r.list()); n != i+1 {
			t.Errorf("full: %d backups are listed, want %d", n, i+1)
		}
		r.must(os.Remove(r.path("small/filler")))
	}
}
