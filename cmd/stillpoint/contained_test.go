package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/scratch"
)

// A container is a server with mounts, a network and process numbers of its own.
type container struct {
	writer string
	user   string
	make   string   // makes its data in $1, as the user
	server []string // started with it in /mnt/data, and a folder /mnt/run
}

var mariadbSmall = []string{"--no-defaults", "--innodb-data-file-path=ibdata1:5M:autoextend", "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M",
	"--innodb-use-native-aio=OFF", "--aria-log-file-size=8M", "--performance-schema=OFF", "--skip-networking"}

var containers = []container{
	{"redis", "redis", "true", []string{"redis-server", "--dir", "/mnt/data", "--bind", "0.0.0.0", "--protected-mode", "no", "--appendonly", "yes"}},
	{"postgresql", "postgres", `$(ls -d /usr/lib/postgresql/*/bin | tail -n1)/initdb --pgdata="$1" --no-sync --wal-segsize=1 --auth=peer --no-instructions >/dev/null`,
		[]string{"sh", "-c", `exec $(ls -d /usr/lib/postgresql/*/bin | tail -n1)/postgres -D /mnt/data -k /mnt/run -c listen_addresses= -c max_wal_size=8MB`}},
	{"mariadb", "mysql", `mariadb-install-db ` + strings.Join(mariadbSmall, " ") + ` --datadir="$1" --skip-test-db --skip-name-resolve --auth-root-authentication-method=socket >/dev/null 2>&1`,
		append(append([]string{"mariadbd"}, mariadbSmall...), "--datadir=/mnt/data", "--socket=/mnt/run/mysqld.sock", "--pid-file=/mnt/run/pid")},
}

// start makes the data of the server in a folder of the host, and starts it where
// nothing of it has a path of the host's.
func (c container) start(t *testing.T, data string) {
	t.Helper()
	scratch.Run(t, "sh", "-euc", `mkdir -m 700 "$1"; chown "$2:" "$1"; cd /; exec setpriv --reuid="$2" --regid="$2" --clear-groups sh -euc "$3" sh "$1"`, "sh", data, c.user, c.make)
	const inside = `mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/data /mnt/run; mount --bind "$1" /mnt/data; chown "$2:" /mnt/run; ip link set lo up; cd /
user=$2; shift 2; exec setpriv --reuid="$user" --regid="$user" --clear-groups "$@"`
	p := exec.Command("sh", append([]string{"-c", `unshare --mount --net --pid --fork --kill-child --propagation private sh -euc "$@" </dev/null >&2 & u=$!; cat >&2; kill -KILL $(cat /proc/$u/task/$u/children) $u; wait`, "sh",
		inside, "sh", data, c.user}, c.server...)...)
	p.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin")
	var said strings.Builder
	p.Stderr = &said
	p.WaitDelay = 10 * time.Second
	in, err := p.StdinPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = p.Wait()
		if t.Failed() {
			t.Logf("%s said %s", c.writer, said.String())
		}
	})
}

// TestContained finds servers that live in containers with no settings at all,
// tells where their data is on the host, and brings them to rest.
func TestContained(t *testing.T) {
	v := scratch.New(t, "ext4", 512*scratch.MiB)
	for dir := v.Dir; dir != os.TempDir(); dir = dir[:strings.LastIndexByte(dir, '/')] {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, bin: t.TempDir()}
	w.programs()
	w.env = append(w.env, "STILLPOINT_REPO="+w.bin+"/repo", "STILLPOINT_PASSWORD=a secret", "HOME="+w.bin)
	var want []string
	for _, c := range containers {
		c.start(t, v.Dir+"/"+c.writer)
		want = append(want, c.writer+":"+v.Dir+"/"+c.writer)
	}
	slices.Sort(want)
	var got []writerInfo
	for end := time.Now().Add(time.Minute); !stable(got, want); time.Sleep(100 * time.Millisecond) {
		var said strings.Builder
		c := w.program("stillpoint", "writers", v.Dir, "--json")
		c.Stderr = &said
		out, err := c.Output() // fails while servers that start remove files
		if err == nil {
			err = json.Unmarshal(out, &got)
		}
		if time.Now().After(end) {
			t.Fatalf("found %s%s, %v", out, said.String(), err)
		}
	}
	for _, i := range got {
		if data := v.Dir + "/" + i.Writer; !slices.Equal(i.Paths, []string{data}) || !slices.Equal(i.Volumes, []string{v.Dir}) || i.Version == "" {
			t.Errorf("%+v", i)
		}
	}
	if out, err := w.program("stillpoint", "init").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := w.program("stillpoint", "backup", v.Dir, "--require", "application", "--json")
	c.Stderr = os.Stderr
	out, err := c.Output()
	var rep job.Report
	if err != nil || json.Unmarshal(out, &rep) != nil || rep.Level != job.Application || len(rep.Applications) != len(want) {
		t.Errorf("%v: %s", err, out)
	}
}

// stable tells whether all are found, and could be brought to rest.
func stable(got []writerInfo, want []string) bool {
	var ids []string
	for _, i := range got {
		if i.State == "stable" {
			ids = append(ids, i.ID)
		}
	}
	slices.Sort(ids)
	return slices.Equal(ids, want)
}
