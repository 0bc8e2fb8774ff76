package backup

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
)

const (
	password = "correct horse"
	mib      = 1 << 20
)

// A rig is an engine with a repository and job logs of its own.
type rig struct {
	*testing.T
	Engine
	dir  string // src, repo, jobs, and whatever a test puts there
	id   repository.Identity
	repo string // folder of the repository
}

// newRig makes one. Without providers everything is read live.
func newRig(t *testing.T, providers ...snapshot.Provider) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, dir: dir, repo: dir + "/repo", id: repository.Identity{Host: "host", User: "root"}}
	r.Engine = Engine{Providers: providers, JobDir: dir + "/jobs", Version: "test", shorter: &coordinator.Limits{Hold: time.Second, Commit: time.Second, Undo: time.Second}}
	r.must(os.Mkdir(r.path("src"), 0o755))
	made, err := madeRepository()
	r.must(err)
	command(t, "cp", "-a", made, r.repo)
	return r
}

// madeRepository is a new repository to copy: making one takes long, for the
// password.
var madeRepository = sync.OnceValues(func() (string, error) {
	dir, err := forRun()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "repo")
	return path, repository.Create(context.Background(), path, password, repository.Options{Identity: repository.Identity{Host: "host", User: "root"}})
})

// notShort leaves a test out of -short, which is for the race detector: what
// it does at the same time, others do as well.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: -short was given, and nothing here happens at the same time that does not elsewhere")
	}
}

func (r *rig) create() {
	r.Helper()
	r.must(repository.Create(r.Context(), r.repo, password, repository.Options{Identity: r.id, Now: r.Now}))
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// path is a path in the rig's directory.
func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// Open is what the Engine is given.
func (r *rig) open(ctx context.Context) (*repository.Repository, error) {
	return repository.Open(ctx, r.repo, password, repository.Options{Identity: r.id, Now: r.Now})
}

func (r *rig) options(o Options) Options {
	if len(o.Paths) == 0 {
		o.Paths = []string{r.path("src")}
	}
	if o.Provider == "" && len(r.Providers) == 0 {
		o.Provider = None
	}
	return o
}

// try takes a backup, by default of src.
func (r *rig) try(o Options) (*job.Report, error) {
	r.Helper()
	return r.Backup(r.Context(), r.open, r.options(o))
}

// backup takes a backup that must be complete, without exceptions.
func (r *rig) backup(o Options) *job.Report {
	r.Helper()
	rep, err := r.try(o)
	if err != nil || rep.Status != job.Complete {
		r.Fatalf("backup: %v\n%s", err, r.log(rep))
	}
	return rep
}

// log renders a job for a failure message.
func (r *rig) log(rep *job.Report) string {
	if rep == nil {
		return "no report"
	}
	var b bytes.Buffer
	if j, err := job.Load(r.JobDir, rep.Job); err == nil {
		for _, e := range j.Events {
			_ = text.Event(&b, e)
		}
	}
	_ = text.Report(&b, *rep)
	return b.String()
}

// exceptions returns the paths of the exceptions in a job's log, and for
// paths of the rig without its directory.
func (r *rig) exceptions(rep *job.Report) map[string]problem.Code {
	r.Helper()
	j, err := job.Load(r.JobDir, rep.Job)
	r.must(err)
	out := map[string]problem.Code{}
	for _, e := range j.Events {
		if e.Code != "" && e.Path != "" {
			out[strings.TrimPrefix(e.Path, r.dir+"/")] = e.Code
		}
	}
	return out
}

// leftOut returns what a report says was left out, with the reason.
func (r *rig) leftOut(rep *job.Report) map[string]string {
	out := map[string]string{}
	for _, l := range rep.LeftOut {
		for _, n := range l.Names {
			out[strings.TrimPrefix(n, r.dir+"/")] = l.Reason
		}
	}
	return out
}

// choose is RestoreOptions.Choose for BACKUP[:PATH].
func (r *rig) choose(spec string) func(context.Context, *repository.Repository) (repository.Backup, []repository.Selected, error) {
	return func(ctx context.Context, repo *repository.Repository) (repository.Backup, []repository.Selected, error) {
		name, path, err := repository.ParseSpec(spec)
		if err != nil {
			return repository.Backup{}, nil, err
		}
		all, err := repo.Backups(ctx)
		if err != nil {
			return repository.Backup{}, nil, err
		}
		b, err := repository.Choose(all, r.id.Host, name, path)
		if err != nil {
			return b, nil, err
		}
		sel, err := repo.Select(ctx, &b, path)
		return b, sel, err
	}
}

// restoreTo restores BACKUP[:PATH] into a folder.
func (r *rig) restoreTo(spec, to string) (*job.Report, error) {
	r.Helper()
	return r.Restore(r.Context(), r.open, RestoreOptions{Choose: r.choose(spec), To: to, Progress: &RestoreProgress{}})
}

// restore restores a backup that must come back in full, and returns where src
// is then.
func (r *rig) restore(spec string) string {
	r.Helper()
	to, err := os.MkdirTemp(r.dir, "restored-")
	r.must(err)
	rep, err := r.restoreTo(spec, to)
	if err != nil || rep.Status != job.Complete {
		r.Fatalf("restore %s: %v\n%s", spec, err, r.log(rep))
	}
	return filepath.Join(to, r.path("src"))
}

// verify verifies everything and returns the damaged names, in order.
func (r *rig) verify(readData bool) []string {
	r.Helper()
	rep, err := r.Verify(r.Context(), r.open, VerifyOptions{ReadData: readData, Progress: &repository.VerifyProgress{},
		Choose: func(ctx context.Context, repo *repository.Repository) ([]repository.Backup, error) {
			return repo.Backups(ctx)
		}})
	if err != nil && problem.CodeOf(err) != problem.RepositoryDamaged {
		r.Fatalf("verify: %v", err)
	}
	var names []string
	for p := range r.exceptions(rep) {
		names = append(names, p)
	}
	slices.Sort(names)
	if (err == nil) != (len(names) == 0) {
		r.Errorf("verify: %v, but damaged are %q", err, names)
	}
	return names
}

// sound fails the test unless everything in the repository can be restored.
func (r *rig) sound() {
	r.Helper()
	if bad := r.verify(true); len(bad) > 0 {
		r.Errorf("damaged: %q", bad)
	}
}

// list returns all backups, newest first.
func (r *rig) list() []repository.Backup {
	r.Helper()
	repo, err := r.open(r.Context())
	r.must(err)
	defer repo.Close(context.Background())
	bs, err := repo.Backups(r.Context())
	r.must(err)
	return bs
}

// checkpoints returns how many unfinished trees of a path there are.
func (r *rig) checkpoints(path string) (n int) {
	r.Helper()
	repo, err := r.open(r.Context())
	r.must(err)
	defer repo.Close(context.Background())
	ts, err := repo.Previous(r.Context(), path)
	r.must(err)
	for _, t := range ts {
		if t.Incomplete {
			n++
		}
	}
	return n
}

// same fails unless two trees are equal in bytes and attributes, as rsync and
// getfattr see them.
func (r *rig) same(a, b string) {
	r.Helper()
	if out := command(r.T, "rsync", "-naHAXi", "--numeric-ids", "--devices", "--specials", "--checksum", "--delete", a+"/", b+"/"); out != "" {
		r.Errorf("%s and %s differ:\n%s", a, b, out)
	}
	attrs := func(dir string) string {
		return command(r.T, "sh", "-c", `cd "$1" && find . -exec getfattr -h -d -m - -e hex {} + | sort; find . -exec getcap {} + | sort; lsattr -R . 2>/dev/null | sed "s/^[-a-zA-Z]* /&\n/; h; s/\n.*//; s/[^SDiadAcC]//g; G; s/\n[^\n]*\n/ /" | sort`, "sh", dir)
	}
	if x, y := attrs(a), attrs(b); x != y {
		r.Errorf("attributes of %s and %s differ:\n%s\n---\n%s", a, b, x, y)
	}
}

// command runs a program, which must succeed within three minutes.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// write makes a file of the rig with the directories that lead to it.
func (r *rig) write(name, content string) string {
	r.Helper()
	path := r.path(name)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.WriteFile(path, []byte(content), 0o644))
	return path
}

// random makes a file that does not compress.
func (r *rig) random(name string, size int) string {
	r.Helper()
	b := make([]byte, size)
	var seed [32]byte
	copy(seed[:], name)
	fill := rand.NewChaCha8(seed)
	fill.Read(b)
	return r.write(name, string(b))
}

// some puts a small tree into src.
func (r *rig) some() {
	r.Helper()
	for i := range 20 {
		r.write(fmt.Sprintf("src/dir%d/file%d", i%4, i), strings.Repeat(fmt.Sprint(i), i*100))
	}
	r.random("src/large", 3*mib)
}

// wantCode fails unless err has the code; the empty one is no error.
func (r *rig) wantCode(err error, code problem.Code) {
	r.Helper()
	if got := problem.CodeOf(err); got != code {
		r.Errorf("code %q, want %q (%v)", got, code, err)
	}
}

// wantStatus fails unless a job ended so.
func (r *rig) wantStatus(rep *job.Report, status job.Status, code problem.Code) {
	r.Helper()
	if rep == nil {
		r.Error("no report")
		return
	}
	if rep.Status != status || rep.Code != code {
		r.Errorf("ended %s %q, want %s %q\n%s", rep.Status, rep.Code, status, code, r.log(rep))
	}
	if j, err := job.Load(r.JobDir, rep.Job); err != nil || j.Report == nil || j.Status != status {
		r.Errorf("the log of job %s: %+v, %v", rep.Job, j.Summary, err)
	}
}
