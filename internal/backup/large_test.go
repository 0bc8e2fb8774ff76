package backup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
)

// A measured is what a run in a process of its own took.
type measured struct {
	Report job.Report
	Peak   int64 // bytes of memory
	Took   time.Duration
}

// measure does something with a rig in a process of its own: "backup",
// "restore" or "verify".
func (r *rig) measure(what, src, to string) (m measured) {
	r.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestMeasuredChild$", "-test.timeout=10m")
	child.Env = append(os.Environ(), "BACKUP_TEST_DO="+what, "BACKUP_TEST_DIR="+r.dir, "BACKUP_TEST_SRC="+src, "BACKUP_TEST_TO="+to)
	child.Stderr = os.Stderr
	began := time.Now()
	out, err := child.Output()
	took := time.Since(began)
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil || json.Unmarshal([]byte(line), &m) != nil {
		r.Fatalf("%s: %v\n%s", what, err, out)
	}
	m.Took = took
	if raced {
		m.Took, m.Peak = 0, 0 // tell nothing
	}
	r.Logf("%-8s %6.1f s, peak %4d MiB, read %d bytes, reused %d of %d files", what, m.Took.Seconds(), m.Peak/mib, m.Report.Total.BytesRead, m.Report.Total.FilesReused, m.Report.Total.Files)
	if m.Report.Status != job.Complete {
		r.Fatalf("%s: %s", what, r.log(&m.Report))
	}
	return m
}

func TestMeasuredChild(t *testing.T) {
	what := os.Getenv("BACKUP_TEST_DO")
	if what == "" {
		t.Skip("skipped: this is the child of other tests")
	}
	dir := os.Getenv("BACKUP_TEST_DIR")
	r := &rig{T: t, dir: dir, repo: dir + "/repo", id: repository.Identity{Host: "host", User: "root"}}
	r.JobDir = dir + "/jobs"
	var rep *job.Report
	var err error
	switch what {
	case "backup":
		rep, err = r.try(Options{Paths: []string{os.Getenv("BACKUP_TEST_SRC")}, Checkpoint: 5 * time.Second})
	case "restore":
		rep, err = r.restoreTo("latest", os.Getenv("BACKUP_TEST_TO"))
	case "verify":
		r.sound()
		rep = &job.Report{Status: job.Complete}
	}
	r.must(err)
	m := measured{Report: *rep, Peak: peakMemory(t)}
	b, err := json.Marshal(m)
	r.must(err)
	fmt.Println(string(b))
}

func peakMemory(t *testing.T) int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && fields[0] == "VmHWM:" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// inMemory is a directory on tmpfs.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stillpoint-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A sparse file of a terabyte costs seconds and little memory, comes back with
// its holes, and the stock program sees its size.
func TestSparseTerabyte(t *testing.T) {
	notShort(t)
	const tib = 1 << 40
	r := newRig(t)
	f, err := os.Create(r.path("src/sparse"))
	r.must(err)
	data := map[int64]string{0: "first", 5 << 30: "at 5 GiB", tib/2 + 12345: "in the middle", tib - 4: "last"}
	for at, s := range data {
		_, err := f.WriteAt([]byte(s), at)
		r.must(err)
	}
	r.must(f.Close())
	aged()
	for range 2 {
		if m := r.measure("backup", r.path("src"), ""); m.Took > 30*time.Second || m.Peak > 600*mib || m.Report.Total.BytesRead > 64*mib {
			t.Errorf("took %s, %d MiB, read %d MiB", m.Took, m.Peak/mib, m.Report.Total.BytesRead/mib)
		}
	}
	to := r.path("to")
	if m := r.measure("restore", "", to); m.Took > 30*time.Second || m.Peak > 600*mib {
		t.Errorf("restore took %s, %d MiB", m.Took, m.Peak/mib)
	}
	info, err := os.Stat(to + r.path("src/sparse"))
	r.must(err)
	if blocks := info.Sys().(*syscall.Stat_t).Blocks; info.Size() != tib || blocks*512 > 8*mib {
		t.Errorf("size %d, %d bytes on disk", info.Size(), blocks*512)
	}
	g, err := os.Open(to + r.path("src/sparse"))
	r.must(err)
	defer g.Close()
	for at, s := range data {
		b := make([]byte, len(s))
		if _, err := g.ReadAt(b, at); err != nil || string(b) != s {
			t.Errorf("at %d: %q, %v", at, b, err)
		}
	}
	if bad := r.verify(false); len(bad) > 0 {
		t.Errorf("damaged: %q", bad)
	}
	k := r.kopia()
	if out := k.run("ls", "-l", k.list()[0].RootEntry.Obj); !strings.Contains(out, fmt.Sprint(int64(tib))) {
		t.Errorf("kopia sees %s", out)
	}
}

// A tree of 3,000 levels is stored, reused and restored, in bounded memory.
func TestDeepTree(t *testing.T) {
	notShort(t)
	const levels = 3000
	r := newRig(t)
	src := inMemory(t)
	descend(t, src, levels, func(dir int, level int) {
		fd, err := syscall.Openat(dir, "file", syscall.O_CREAT|syscall.O_WRONLY, 0o644)
		r.must(err)
		_, err = syscall.Write(fd, fmt.Append(nil, level))
		r.must(err)
		r.must(syscall.Close(fd))
		if level < levels {
			r.must(syscall.Mkdirat(dir, "directory", 0o755))
		}
	})
	aged()
	for i := range 3 {
		m := r.measure("backup", src, "")
		if m.Report.Total.Files != levels+1 || m.Peak > 600*mib || i > 0 && m.Report.Total.BytesRead > 0 {
			t.Errorf("run %d: %d files, %d MiB, read %d bytes", i, m.Report.Total.Files, m.Peak/mib, m.Report.Total.BytesRead)
		}
	}
	to := inMemory(t)
	if m := r.measure("restore", "", to); m.Peak > 600*mib {
		t.Errorf("restore: %d MiB", m.Peak/mib)
	}
	descend(t, to+src, levels, func(dir int, level int) {
		fd, err := syscall.Openat(dir, "file", syscall.O_RDONLY, 0)
		if err != nil {
			t.Fatalf("level %d: %v", level, err)
		}
		defer syscall.Close(fd)
		b := make([]byte, 10)
		if n, err := syscall.Read(fd, b); err != nil || string(b[:n]) != fmt.Sprint(level) {
			t.Errorf("level %d: %q, %v", level, b[:n], err)
		}
	})
	r.sound()
}

// descend calls visit with each directory on the way down through "directory".
func descend(t *testing.T, top string, levels int, visit func(dir, level int)) {
	t.Helper()
	dir, err := syscall.Open(top, syscall.O_DIRECTORY|syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for level := 0; ; level++ {
		visit(dir, level)
		if level == levels {
			syscall.Close(dir)
			return
		}
		next, err := syscall.Openat(dir, "directory", syscall.O_DIRECTORY|syscall.O_RDONLY, 0)
		syscall.Close(dir)
		if err != nil {
			t.Fatalf("level %d: %v", level, err)
		}
		dir = next
	}
}

// Very many names in one directory: bounded memory in every job. There are
// 200,000, or what STILLPOINT_TEST_NAMES says; `make soak` says a million.
func TestManyNames(t *testing.T) {
	notShort(t)
	n := 200_000
	if s := os.Getenv("STILLPOINT_TEST_NAMES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if raced {
		n = 20_000
	}
	r := newRig(t)
	src := inMemory(t)
	for i := range n {
		fd, err := syscall.Open(filepath.Join(src, fmt.Sprintf("a name of usual length %07d", i)), syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o644)
		r.must(err)
		if i%1000 == 0 {
			_, err = syscall.Write(fd, fmt.Append(nil, i))
			r.must(err)
		}
		r.must(syscall.Close(fd))
	}
	aged()
	limit := int64(250*mib + n*150)
	for i := range 2 {
		m := r.measure("backup", src, "")
		if m.Report.Total.Files != int64(n) || m.Peak > limit || i > 0 && m.Report.Total.FilesReused != int64(n) {
			t.Errorf("run %d: %d files, %d reused, peak %d MiB of %d", i, m.Report.Total.Files, m.Report.Total.FilesReused, m.Peak/mib, limit/mib)
		}
	}
	to := inMemory(t)
	if m := r.measure("restore", "", to); m.Peak > limit || m.Report.Total.Files != int64(n) {
		t.Errorf("restore: %d files, peak %d MiB of %d", m.Report.Total.Files, m.Peak/mib, limit/mib)
	}
	if m := r.measure("verify", "", ""); m.Peak > limit {
		t.Errorf("verify: peak %d MiB of %d", m.Peak/mib, limit/mib)
	}
	if out := command(t, "rsync", "-nai", "--delete", src+"/", to+src+"/"); out != "" {
		t.Errorf("restored differs: %.1000s", out)
	}
}

// A sparse file beyond what the repository can hold costs its exception, not
// the memory of the server.
func TestSparseExabytes(t *testing.T) {
	notShort(t)
	r := newRig(t)
	v := scratch.New(t, "xfs", 400*mib)
	src := v.Dir + "/src"
	r.must(os.Mkdir(src, 0o755))
	r.must(os.WriteFile(src+"/good", []byte("good"), 0o644))
	r.must(os.WriteFile(src+"/huge", []byte("start"), 0o644))
	r.must(os.Truncate(src+"/huge", 1<<63-1))
	began := time.Now()
	rep, err := r.try(Options{Paths: []string{src}})
	r.must(err)
	if x := r.exceptions(rep); len(x) != 1 || x[src+"/huge"] != problem.FileUnreadable || time.Since(began) > time.Minute {
		t.Errorf("after %s: %v", time.Since(began), x)
	}
	r.wantStatus(rep, job.CompleteWithExceptions, problem.FileUnreadable)
	if got := r.names(src); got != "good" {
		t.Errorf("stored: %q", got)
	}
}
