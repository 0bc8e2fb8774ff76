package backup

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/agent"
	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow"
)

// forRun holds what is made once for all tests of a run.
var forRun = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "stillpoint-test-run-") })

func TestMain(m *testing.M) {
	guard.Main()
	holder.Main()
	agent.Main(func() snapshot.Provider { return cow.New(host, cow.Options{}) })
	code := m.Run()
	if dir, err := forRun(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// stockKopia builds the kopia program from the version that go.mod names.
var stockKopia = sync.OnceValues(func() (string, error) {
	dir, err := forRun()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kopia")
	out, err := exec.Command("go", "build", "-o", path, "github.com/kopia/kopia").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: "go build: " + string(out), Err: err}
	}
	return path, nil
})

// A stock is the kopia program, connected to a rig's repository.
type stock struct {
	*rig
	program string
}

func (r *rig) kopia() *stock {
	r.Helper()
	path, err := stockKopia()
	r.must(err)
	k := &stock{r, path}
	k.run("repository", "connect", "filesystem", "--path="+r.repo, "--override-hostname="+r.id.Host, "--override-username="+r.id.User)
	return k
}

// run runs it, and returns what it printed.
func (k *stock) run(args ...string) string {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, k.program, args...)
	c.Env = append(os.Environ(), "HOME="+k.path("kopia-home"), "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=", "KOPIA_PASSWORD="+password, "KOPIA_CHECK_FOR_UPDATES=false")
	out, err := c.CombinedOutput()
	if err != nil {
		k.Fatalf("kopia %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

type stockSnapshot struct {
	ID         string `json:"id"`
	Source     struct{ Path string }
	Incomplete string `json:"incomplete"`
	RootEntry  struct {
		Obj  string `json:"obj"`
		Summ struct{ Size, Files int64 }
	}
}

// list returns the snapshots that it sees.
func (k *stock) list(args ...string) (all []stockSnapshot) {
	k.Helper()
	out := k.run(append([]string{"snapshot", "list", "--all", "--json"}, args...)...)
	k.must(json.Unmarshal([]byte(out[strings.Index(out, "["):]), &all))
	return all
}

// The stock program lists, verifies and restores our backups, and after it
// made a snapshot of its own and maintained the repository in full, ours still
// lists, verifies and restores everything.
func TestStockKopia(t *testing.T) {
	notShort(t)
	v := scratch.New(t, "ext4", scratch.GiB)
	r := newRig(t)
	full, plain := v.Dir+"/full", v.Dir+"/plain"
	r.must(os.Mkdir(full, 0o755))
	everything(t, full)
	r.must(os.Mkdir(plain, 0o2750))
	r.must(os.Chown(plain, 3, 4))
	for name, content := range map[string]string{"a/file": "x", "a/b/empty": "", "a/large": strings.Repeat("0123456789", 2*mib), "set-uid": "x"} {
		r.must(os.MkdirAll(filepath.Dir(plain+"/"+name), 0o755))
		r.must(os.WriteFile(plain+"/"+name, []byte(content), 0o644))
	}
	r.must(os.Symlink("a/file", plain+"/link"))
	r.must(syscall.Chmod(plain+"/set-uid", 0o6755))
	r.must(syscall.Chmod(plain, 0o3775))
	r.must(os.Chtimes(plain+"/a/file", time.Unix(1e9, 123456789), time.Unix(1e9, 123456789)))
	aged()
	paths := []string{full, plain}
	r.backup(Options{Paths: paths})
	r.must(os.WriteFile(plain+"/new", []byte("new"), 0o600))
	r.backup(Options{Paths: paths})

	k := r.kopia()
	all := k.list()
	if len(all) != 4 {
		t.Fatalf("kopia sees %d snapshots, want 4: %+v", len(all), all)
	}
	k.run("snapshot", "verify", "--verify-files-percent=100")
	for _, s := range all {
		if s.Source.Path != plain || s.RootEntry.Summ.Files != 5 {
			continue
		}
		to := r.path("by-kopia")
		k.run("restore", s.ID, to)
		if out := command(t, "rsync", "-naHi", "--numeric-ids", "--checksum", "--delete", plain+"/", to+"/"); out != "" {
			t.Errorf("restored by kopia differs:\n%s", out)
		}
		r.must(os.RemoveAll(to))
	}
	if _, err := os.Stat(r.path("by-kopia")); err == nil {
		t.Error("no snapshot of", plain, "was restored")
	}

	k.run("snapshot", "create", plain)
	k.run("snapshot", "create", r.path("src"))
	for range 2 {
		k.run("maintenance", "run", "--full", "--safety=none")
	}
	if bs := r.list(); len(bs) != 4 || bs[0].Provider != "kopia" || bs[2].Provider != None {
		t.Errorf("ours lists %+v", bs)
	}
	r.sound()
	for _, b := range r.list()[:2] { // kopia's own, by us
		if b.Trees[0].Path == plain {
			to := r.path("of-kopia")
			rep, err := r.restoreTo(b.ID, to)
			r.must(err)
			r.wantStatus(rep, "complete", "")
			r.same(plain, to+plain)
		}
	}
	for i, b := range r.list()[2:] {
		to := v.Dir + "/to" + b.ID
		rep, err := r.restoreTo(b.ID+":"+full, to)
		r.must(err)
		r.wantStatus(rep, "complete", "")
		r.same(full, to+full)
		if rep, err = r.restoreTo(b.ID+":"+plain, to); i == 0 {
			r.must(err)
			r.wantStatus(rep, "complete", "")
			r.same(plain, to+plain)
		}
	}
	// And the next backup builds on our last one, not on kopia's.
	if rep := r.backup(Options{Paths: []string{full}}); rep.Total.FilesReused == 0 {
		t.Errorf("nothing was reused: %+v", rep.Total)
	}
	k.run("snapshot", "verify", "--verify-files-percent=100")
	if _, err := repository.Choose(r.list(), r.id.Host, repository.Latest, plain); err != nil {
		t.Error(err)
	}
}

// What a killed run leaves is a checkpoint for the stock program, too.
func TestStockKopiaSeesCheckpoints(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.interrupted()
	k := r.kopia()
	all := k.list("--incomplete")
	if len(all) != 1 || all[0].Incomplete == "" {
		t.Errorf("kopia sees %+v", all)
	}
	if out := k.run("snapshot", "list", "--all"); strings.Contains(out, all[0].RootEntry.Obj) {
		t.Errorf("kopia takes it for complete:\n%s", out)
	}
	if out := k.run("snapshot", "list", "--all", "--incomplete"); !strings.Contains(out, "incomplete:checkpoint") {
		t.Errorf("kopia does not say that it is incomplete:\n%s", out)
	}
}
