package backup

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// A file that changes all the time, one that the disk cannot read, and much
// else that is well: the run is complete with exceptions, which it names.
func TestLiveExceptions(t *testing.T) {
	r := newRig(t)
	v := scratch.New(t, "btrfs", 256*mib, scratch.Format("-d", "single"))
	src := v.Dir + "/src"
	r.must(os.Mkdir(src, 0o755))
	r.must(os.WriteFile(src+"/good", []byte("good"), 0o644))
	mark := []byte("a mark that is nowhere else on this volume, 0123456789\n")
	r.must(os.WriteFile(src+"/bad", bytes.Repeat(mark, 4096), 0o644))
	r.must(os.Link(src+"/bad", src+"/bad-too"))
	src = rot(t, v, mark) + "/src"
	log, err := os.Create(src + "/log")
	r.must(err)
	defer log.Close()
	_, err = log.Write(make([]byte, 96*mib)) // to be read for longer than its writer ever has to wait
	r.must(err)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = log.WriteAt([]byte{i}, 5)
			}
		}
	}()
	rep, err := r.try(Options{Paths: []string{src}})
	close(stop)
	<-ended
	r.must(err)
	want := map[string]problem.Code{src + "/bad": problem.FileUnreadable, src + "/bad-too": problem.FileUnreadable, src + "/log": problem.FileChanged}
	got := r.exceptions(rep)
	for p, c := range want {
		if got[p] != c {
			t.Errorf("%s: %q, want %q", p, got[p], c)
		}
	}
	if len(got) != len(want) || rep.Status != job.CompleteWithExceptions || rep.Level != job.Live {
		t.Errorf("exceptions %v\n%s", got, r.log(rep))
	}
	if b := r.list()[0]; b.Exceptions != 3 || b.Status != string(job.CompleteWithExceptions) {
		t.Errorf("recorded: %+v", b)
	}
	r.sound()
	to := r.path("to")
	rep, err = r.restoreTo("latest", to)
	r.must(err)
	r.wantStatus(rep, job.Complete, "")
	if b, err := os.ReadFile(to + src + "/good"); err != nil || string(b) != "good" {
		t.Errorf("good: %q, %v", b, err)
	}
	for _, name := range []string{"bad", "bad-too"} {
		if _, err := os.Stat(to + src + "/" + name); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

// rot damages the data of a file that holds mark, below the file system, and
// returns where the volume is mounted now.
func rot(t *testing.T, v *scratch.Volume, mark []byte) string {
	t.Helper()
	command(t, "umount", v.Dir)
	image, err := os.ReadFile(v.Devices[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(image, mark)
	if at < 0 {
		t.Fatal("the content is not on the device")
	}
	f, err := os.OpenFile(v.Devices[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("X"), int64(at+100_000))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return v.Mount(t, "")
}

// The files that a program holds open and appends to, slowly.
func TestGrowingLog(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.write("src/log", "first\n")
	writer := exec.Command("sh", "-c", `while echo line; do sleep 0.05; done >>"$1"`, "sh", r.path("src/log"))
	r.must(writer.Start())
	defer writer.Wait()
	defer writer.Process.Kill()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(r.path("src/log"))
		r.must(err)
		if bytes.Contains(b, []byte("line\n")) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody appends to it")
		}
	}
	rep, err := r.try(Options{})
	r.must(err)
	if rep.Status != job.Complete && rep.Code != problem.FileChanged {
		t.Errorf("%s", r.log(rep))
	}
	r.sound()
	b, err := os.ReadFile(r.restore("latest") + "/log")
	r.must(err)
	if !bytes.HasPrefix(b, []byte("first\nline\n")) || b[len(b)-1] != '\n' {
		t.Errorf("restored %q", b)
	}
}
