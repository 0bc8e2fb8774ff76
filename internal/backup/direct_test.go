package backup

import (
	"context"
	"os"
	"testing"
	"time"

	"stillpoint/internal/agent"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/volume"
)

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// A veiled provider is one whose snapshots can be read through their Root only.
type veiled struct{ snapshot.Provider }

func (p veiled) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	pending, err := p.Provider.Prepare(ctx, id, ts)
	return veiledPending{pending}, err
}

type veiledPending struct{ snapshot.Pending }

func (p veiledPending) Commit(ctx context.Context) (snaps []snapshot.Snapshot, err error) {
	all, err := p.Pending.Commit(ctx)
	for _, s := range all {
		snaps = append(snaps, struct{ snapshot.Snapshot }{s})
	}
	return snaps, err
}

// plain makes a volume of a file system without snapshots of its own, with a tree
// of all kinds of files.
func (r *rig) plain(fs string) string {
	r.Helper()
	v := scratch.New(r, fs, 400*scratch.MiB)
	src := v.Dir + "/src"
	r.must(os.Mkdir(src, 0o755))
	command(r.T, "sh", "-c", `cd "$1" && mkdir -p dir/below empty large && seq 1 20000 > plain && : > nothing && ln plain dir/again && ln -s no/where dir/link &&
		mkfifo fifo && mknod null c 1 3 && truncate -s 8M holes && dd if=/dev/urandom of=holes bs=1M count=1 seek=3 conv=notrunc status=none &&
		setfattr -n user.one -v 1 plain && setfattr -n trusted.two -v 2 dir && setfacl -m u:1234:r dir/again && chattr +d plain && chattr +S nothing && chattr +A dir &&
		for i in $(seq 600); do echo $i > large/$i; done && mkdir large/dir && touch -d 1965-01-02 holes && chmod 4711 dir/again`, "sh", src)
	r.must(os.WriteFile(src+"/dir/odd \xff\n", []byte("odd"), 0o644))
	return src
}

// directRoot takes a backup as a host of its own, that has none yet, and returns
// the object of the tree: the listing of the root with all that is below.
func (r *rig) directRoot(name string, p snapshot.Provider, src string) string {
	r.Helper()
	r.Providers, r.id.Host = nil, name
	o := Options{Paths: []string{src}, Provider: None}
	if p != nil {
		r.Providers, o.Provider = []snapshot.Provider{p}, ""
	}
	rep := r.backup(o)
	for _, b := range r.list() {
		if b.ID == rep.Backup {
			return b.Trees[0].Root.Object
		}
	}
	r.Fatalf("%s: no backup", name)
	return ""
}

// However a snapshot of a plain volume is read, what is stored is the same to the
// last bit, and the same that is read live: all ways give the same object.
func TestDirectStoresTheSame(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			r := newRig(t)
			src := r.plain(fs)
			p := cow.New(host, cow.Options{})
			want := r.directRoot("live", nil, src)
			for name, p := range map[string]snapshot.Provider{
				"view":  veiled{p},
				"here":  p,
				"agent": &agent.Provider{Local: p, Socket: r.path("none")},
			} {
				if got := r.directRoot(name, p, src); got != want {
					t.Errorf("%s stores %s, and reading live %s", name, got, want)
				}
			}
			r.sound()
		})
	}
}

// What has not changed since the last backup is not read again, whichever way
// that was taken; a single file, a part of the tree and several paths are read
// directly, too, also where they are deleted by then.
func TestDirectReuse(t *testing.T) {
	r := newRig(t)
	src := r.plain("ext4")
	r.backup(Options{Paths: []string{src}, Provider: None})
	r.Providers = []snapshot.Provider{&agent.Provider{Local: cow.New(host, cow.Options{}), Socket: r.path("none")}}
	// A file that has changed just now is read again (granule).
	for begin := time.Now(); time.Since(begin) < 2100*time.Millisecond; {
		time.Sleep(100 * time.Millisecond)
	}
	first := r.backup(Options{Paths: []string{src}})
	r.must(os.WriteFile(src+"/large/17", []byte("other"), 0o644))
	second := r.backup(Options{Paths: []string{src}})
	files := second.Total.Files
	if first.Total.Files != files || second.Total.FilesReused < files-3 {
		t.Errorf("%d files, of which %d are reused", files, second.Total.FilesReused)
	}
	if rep := r.backup(Options{Paths: []string{src + "/dir", src + "/plain", src + "/fifo"}}); rep.Total.Files != 3 {
		t.Errorf("of a part there are %d files, want 3", rep.Total.Files)
	}
	r.sound()
}

// losing is a provider whose snapshots are lost when their first file is opened.
type losing struct{ snapshot.Provider }

func (p losing) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	pending, err := p.Provider.Prepare(ctx, id, ts)
	return losingPending{pending}, err
}

type losingPending struct{ snapshot.Pending }

func (p losingPending) Commit(ctx context.Context) (snaps []snapshot.Snapshot, err error) {
	all, err := p.Pending.Commit(ctx)
	for _, s := range all {
		snaps = append(snaps, losingSnapshot{s})
	}
	return snaps, err
}

type losingSnapshot struct{ snapshot.Snapshot }

func (s losingSnapshot) Unwrap() snapshot.Snapshot { return s.Snapshot }

func (s losingSnapshot) Reader(ctx context.Context) (snapshot.Reader, error) {
	r, err := s.Snapshot.(snapshot.Readable).Reader(ctx)
	return losingReader{r, s}, err
}

type losingReader struct {
	snapshot.Reader
	of snapshot.Snapshot
}

func (r losingReader) Open(i snapshot.Item) (snapshot.Content, error) {
	if err := r.of.Release(context.Background()); err != nil {
		return nil, err
	}
	return r.Reader.Open(i)
}

// A snapshot that is lost while it is read directly ends the backup.
func TestDirectLost(t *testing.T) {
	r := newRig(t, losing{cow.New(host, cow.Options{})})
	rep, err := r.try(Options{Paths: []string{r.plain("ext4")}})
	r.wantCode(err, problem.SnapshotLost)
	r.wantStatus(rep, job.Failed, problem.SnapshotLost)
	if all := r.list(); len(all) > 0 {
		t.Errorf("%d backups were recorded", len(all))
	}
}
