//go:build zfs

package zfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// These tests need the module of ZFS, which the hosts that run "make test" have not:
// "make test-zfs" runs them in a virtual machine that does.

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// recordDir is where these tests keep records, in their children, too.
const recordDir = "/var/tmp/stillpoint-test-records"

// A testPool is a pool in a file, with what is mounted of it below dir.
type testPool struct {
	name, dir, file string
	t               testing.TB
}

var pools int

// newPool makes a pool, which goes with the test.
func newPool(tb testing.TB, options ...string) testPool {
	tb.Helper()
	base, err := os.MkdirTemp("/var/tmp", "stillpoint-test-zfs-")
	if err != nil {
		tb.Fatal(err)
	}
	return newPoolIn(tb, base, options...)
}

// newPoolIn makes it in a folder, which goes, too.
func newPoolIn(tb testing.TB, base string, options ...string) testPool {
	tb.Helper()
	pools++
	p := testPool{name: fmt.Sprintf("tank%d-%d", os.Getpid(), pools), dir: filepath.Join(base, "mnt"), file: filepath.Join(base, "disk"), t: tb}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := tool.Run(ctx, "zpool", "list", p.name); err == nil {
			p.retry("zpool", "destroy", "-f", p.name)
		}
		if err := os.RemoveAll(base); err != nil {
			tb.Error(err)
		}
	})
	if err := os.WriteFile(p.file, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(p.file, scratch.GiB); err != nil {
		tb.Fatal(err)
	}
	args := append([]string{"create", "-f", "-O", "mountpoint=" + p.dir, "-O", "acltype=posixacl", "-O", "xattr=sa"}, options...)
	scratch.Run(tb, "zpool", append(args, p.name, p.file)...)
	return p
}

// retry runs a command until it works: what was in use a moment ago may be still.
func (p testPool) retry(name string, args ...string) {
	p.t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err = tool.Run(context.Background(), name, args...); err == nil {
			return
		}
	}
	p.t.Error(err)
}

func (p testPool) zfs(args ...string) string {
	p.t.Helper()
	return scratch.Run(p.t, "zfs", args...)
}

// create makes datasets, each with a file "in" that holds its name.
func (p testPool) create(names ...string) {
	p.t.Helper()
	for _, name := range names {
		p.zfs("create", p.name+"/"+name)
		p.put(name)
	}
}

func (p testPool) put(name string) {
	p.t.Helper()
	must(p.t, os.WriteFile(filepath.Join(p.dir, name, "in"), []byte(name), 0o644))
}

// volume describes the dataset that is mounted at a place.
func (p testPool) volume(rel string) volume.Volume {
	p.t.Helper()
	v, _ := scratch.Find(p.t, filepath.Join(p.dir, rel))
	return v
}

// snapshots lists those of the pool.
func (p testPool) snapshots() string {
	p.t.Helper()
	return strings.Join(strings.Fields(p.zfs("list", "-H", "-r", "-t", "snapshot", "-o", "name", p.name)), " ")
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func provider() *Provider { return New(host, recordDir) }

var sets int

func prepare(t *testing.T, ts ...snapshot.Target) snapshot.Pending {
	t.Helper()
	sets++
	pending, err := provider().Prepare(t.Context(), fmt.Sprintf("set%dof%d", sets, os.Getpid()), ts)
	must(t, err)
	t.Cleanup(func() { must(t, pending.Abort(context.Background())) })
	return pending
}

func of(v volume.Volume, paths ...string) snapshot.Target {
	return snapshot.Target{Volume: v, Paths: paths}
}

// take takes a set, which is released when the test ends.
func take(t *testing.T, ts ...snapshot.Target) []snapshot.Snapshot {
	t.Helper()
	snaps, err := prepare(t, ts...).Commit(t.Context())
	must(t, err)
	for _, s := range snaps {
		t.Cleanup(func() {
			if err := s.Release(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	return snaps
}

// shows compares parts, as "path path", and gaps, as "path:code path:rule".
func shows(t *testing.T, s snapshot.Snapshot, wantParts, wantGaps string) {
	t.Helper()
	var parts, gaps []string
	for _, p := range s.Parts() {
		parts = append(parts, p.Path)
	}
	for _, g := range s.Gaps() {
		code := string(g.Code)
		if code == "" {
			code = "rule"
		}
		if g.Reason == "" {
			code += "(no reason)"
		}
		gaps = append(gaps, g.Path+":"+code)
	}
	if got := strings.Join(parts, " "); got != wantParts {
		t.Errorf("parts %q, want %q", got, wantParts)
	}
	if got := strings.Join(gaps, " "); got != wantGaps {
		t.Errorf("gaps %q, want %q: %v", got, wantGaps, s.Gaps())
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

// reads compares the file "in" of places, and tries to write there.
func reads(t *testing.T, s snapshot.Snapshot, want map[string]string) {
	t.Helper()
	for path, text := range want {
		dir := filepath.Join(s.Root(), path)
		b, err := os.ReadFile(filepath.Join(dir, "in"))
		if err != nil || string(b) != text {
			t.Errorf("%s/in is %q, %v; want %q", path, b, err, text)
		}
		if err := os.Mkdir(filepath.Join(dir, "new"), 0o700); !errors.Is(err, syscall.EROFS) {
			t.Errorf("mkdir in %s: %v", path, err)
		}
	}
}

func hasCode(t *testing.T, what string, err error, want problem.Code) {
	t.Helper()
	if code := problem.CodeOf(err); code != want {
		t.Errorf("%s: %v, code %q, want %q", what, err, code, want)
	}
}

// records names what is in the folder of the records.
func recordNames(tb testing.TB) string {
	list, err := os.ReadDir(recordDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
