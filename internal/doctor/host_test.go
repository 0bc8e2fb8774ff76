package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/sys/clock"
	"stillpoint/internal/volume"
	"stillpoint/internal/writer"
)

func TestKernel(t *testing.T) {
	healthy(t, look(t, Kernel(Here(), Subject{Volumes: []volume.Volume{{FSType: "ext4"}}}, nil)))
	of := func(release, like string) Host {
		return recorded(t, map[string]string{"proc/sys/kernel/osrelease": release + "\n", "etc/os-release": "NAME=\"x\"\nID=" + like + "\n"})
	}
	plain := Subject{Paths: []string{"/"}, Volumes: []volume.Volume{{FSType: "xfs", Mounts: []volume.Mount{{Point: "/"}}}}}
	f := says(t, look(t, Kernel(of("6.1.0-28-amd64", "debian"), plain, nil)), Failure, problem.KernelOld, "6.1.0-28-amd64", "6.14")
	for _, word := range []string{"backports", "btrfs", "--provider none"} {
		if !strings.Contains(f.Advice, word) {
			t.Errorf("what would work instead: %q has no %q", f.Advice, word)
		}
	}
	for like, word := range map[string]string{"ubuntu": "hwe", `"rocky"` + "\nID_LIKE=\"rhel centos fedora\"": "ELRepo", "opensuse-leap\nID_LIKE=\"suse opensuse\"": "Kernel:stable", "other": "newer release"} {
		if f := says(t, look(t, Kernel(of("5.14.0", like), plain, nil)), Failure, problem.KernelOld); !strings.Contains(f.Advice, word) {
			t.Errorf("%s: %q", like, f.Advice)
		}
	}
	whole := Subject{Volumes: plain.Volumes}
	says(t, look(t, Kernel(of("6.13.9", "debian"), whole, nil)), Warning, problem.KernelOld)
	healthy(t, look(t, Kernel(of("6.14.0-rc1", "debian"), plain, nil)))
	healthy(t, look(t, Kernel(of("7.0.1", "debian"), plain, nil)))
	healthy(t, look(t, Kernel(of("5.10.0", "debian"), Subject{Paths: []string{"/"}, Volumes: []volume.Volume{{FSType: "btrfs"}}}, nil)))
	taken := map[volume.ID]Choice{plain.Volumes[0].ID: {Provider: fake.New(t.TempDir(), fake.Options{})}}
	healthy(t, look(t, Kernel(of("6.1.0", "debian"), plain, taken)))
	hindered := map[volume.ID]Choice{plain.Volumes[0].ID: {Err: problem.New(problem.DeviceSuspended, "", nil)}}
	healthy(t, look(t, Kernel(of("6.1.0", "debian"), plain, hindered)))
	says(t, look(t, Kernel(of("odd", "debian"), plain, nil)), Unknown, problem.LookFailed)
}

// The levels of pressure cannot be made here without being a burden for all;
// these are lines as the kernel's documentation has them.
func TestPressure(t *testing.T) {
	pressure := func(memory, io string) Host {
		line := func(share string) string {
			return "some avg10=99.00 avg60=99.00 avg300=99.00 total=4414165211\nfull avg10=0.00 avg60=" + share + " avg300=0.00 total=0\n"
		}
		return recorded(t, map[string]string{"proc/pressure/memory": line(memory), "proc/pressure/io": line(io)})
	}
	healthy(t, look(t, Pressure(pressure("4.99", "39.00"))))
	says(t, look(t, Pressure(pressure("5.00", "0.00"))), Warning, problem.HostBusy, "memory", "5 %")
	says(t, look(t, Pressure(pressure("0.00", "73.21"))), Warning, problem.HostBusy, "io", "73 %")
	says(t, look(t, Pressure(recorded(t, map[string]string{"proc/pressure/memory": "odd", "proc/pressure/io": ""}))), Unknown, problem.LookFailed)
	healthy(t, look(t, Pressure(recorded(t, nil))))
	for _, f := range look(t, Pressure(Here())) { // it may be busy indeed
		if f.Result == Unknown {
			t.Errorf("this host: %+v", f)
		}
	}
}

// Modules that are none of this kernel's are in a list as it would be; a program
// of such a name is made for real.
func TestRivals(t *testing.T) {
	h := recorded(t, map[string]string{"proc/modules": "ext4 1093632 1 - Live 0xffffffffc0a00000\nveeamblksnap 184320 0 - Live 0xffffffffc0b00000 (OE)\ndattobd 118784 1 - Live 0xffffffffc0c00000 (OE)\n"})
	fs := look(t, Rivals(h))
	says(t, fs, Warning, problem.OtherSnapshots, "module dattobd", "Datto")
	says(t, fs, Warning, problem.OtherSnapshots, "module veeamblksnap", "Veeam")
	healthy(t, look(t, Rivals(recorded(t, map[string]string{"proc/modules": "ext4 1093632 1 - Live 0x0\n", "proc/1/comm": "systemd\n"}))))

	sleep, err := exec.LookPath("sleep")
	must(t, err)
	b, err := os.ReadFile(sleep)
	must(t, err)
	defrag := filepath.Join(t.TempDir(), "e4defrag")
	must(t, os.WriteFile(defrag, b, 0o755))
	c := child(t, false, "", defrag, "600")
	soon(t, "it has its name", func() bool { return program("/proc/"+strconv.Itoa(c.Process.Pid)) == "e4defrag" })
	says(t, look(t, Rivals(Here())), Warning, problem.OtherSnapshots, named("e4defrag", c.Process.Pid), "moves files")
}

func TestTimers(t *testing.T) {
	h := recorded(t, nil)
	healthy(t, look(t, Timers(h)))
	wants := filepath.Join(h.Etc, "systemd/system/timers.target.wants")
	must(t, os.MkdirAll(wants, 0o755), os.Symlink("/usr/lib/systemd/system/snapper-timeline.timer", filepath.Join(wants, "snapper-timeline.timer")))
	must(t, os.MkdirAll(filepath.Join(h.Etc, "cron.d"), 0o755), os.WriteFile(filepath.Join(h.Etc, "cron.d/timeshift-hourly"), nil, 0o644))
	fs := look(t, Timers(h))
	says(t, fs, Warning, problem.OtherSnapshots, "snapper-timeline.timer")
	says(t, fs, Warning, problem.OtherSnapshots, "timeshift-hourly")
}

func TestClock(t *testing.T) {
	now := time.Now()
	last := func(d time.Duration) Last { return Last{"backup abc", now.Add(d)} }
	kept := func(right bool) func() (bool, error) { return func() (bool, error) { return right, nil } }
	healthy(t, look(t, Clock(now, last(-time.Hour), kept(true))))
	healthy(t, look(t, Clock(now, last(30*time.Second), nil)))
	healthy(t, look(t, Clock(now, Last{}, kept(true))))
	says(t, look(t, Clock(now, last(2*time.Hour), kept(true))), Warning, problem.ClockWrong, "backup abc", "2h0m0s")
	says(t, look(t, Clock(now, Last{}, kept(false))), Warning, problem.ClockWrong, "no time service")
	if _, err := clock.Synchronised(); err != nil {
		t.Errorf("this host: %v", err)
	}
}

// LVM cannot run here. What it prints is as lvs(8) and vgs(8) of lvm2 2.03 print it.
func TestPools(t *testing.T) {
	on := func(dm ...string) Subject {
		var s Subject
		for _, name := range dm {
			s.Volumes = append(s.Volumes, volume.Volume{Stack: []volume.Device{{Name: "dm-0", Type: "lvm", DMName: name}}})
		}
		return s
	}
	print := func(data, metadata, snap, free string) Runner {
		return func(ctx context.Context, name string, args ...string) ([]byte, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("it has no deadline")
			}
			if got := strings.Join(args, " "); !strings.HasPrefix(got, "--reportformat json --units b --nosuffix") {
				t.Errorf("%s %s", name, got)
			}
			if name == "vgs" {
				return []byte(`{"report": [{"vg": [{"vg_name":"my-vg", "vg_size":"107369988096", "vg_free":"` + free + `"},{"vg_name":"other", "vg_size":"1000", "vg_free":"0"}]}], "log": []}`), nil
			}
			return []byte(`{"report": [{"lv": [
				{"vg_name":"my-vg", "lv_name":"root", "lv_attr":"Vwi-aotz--", "data_percent":"99.00", "metadata_percent":""},
				{"vg_name":"my-vg", "lv_name":"pool", "lv_attr":"twi-aotz--", "data_percent":"` + data + `", "metadata_percent":"` + metadata + `"},
				{"vg_name":"my-vg", "lv_name":"[pool_tmeta]", "lv_attr":"ewi-ao----", "data_percent":"", "metadata_percent":""},
				{"vg_name":"my-vg", "lv_name":"old", "lv_attr":"swi-a-s---", "data_percent":"` + snap + `", "metadata_percent":""},
				{"vg_name":"other", "lv_name":"pool", "lv_attr":"twi-aotz--", "data_percent":"100.00", "metadata_percent":"100.00"}]}]}`), nil
		}
	}
	s := on("my--vg-root", "my--vg-home--2")
	healthy(t, look(t, Pools(s, print("79.99", "12.00", "5.00", "53687091200"))))
	says(t, look(t, Pools(s, print("85.20", "12.00", "5.00", "53687091200"))), Warning, problem.PoolFull, "my-vg/pool", "85 %", "12 %")
	says(t, look(t, Pools(s, print("5.20", "91.40", "5.00", "53687091200"))), Warning, problem.PoolFull, "my-vg/pool", "91 %")
	says(t, look(t, Pools(s, print("5.20", "5.00", "88.00", "53687091200"))), Warning, problem.PoolFull, "my-vg/old", "88 %")
	says(t, look(t, Pools(s, print("5.20", "5.00", "5.00", "4194304"))), Warning, problem.PoolFull, "my-vg", "4 MiB left")
	healthy(t, look(t, Pools(Subject{}, func(context.Context, string, ...string) ([]byte, error) {
		t.Error("LVM is asked where there is none")
		return nil, nil
	})))
	broken := func(out string, err error) Runner {
		return func(context.Context, string, ...string) ([]byte, error) { return []byte(out), err }
	}
	says(t, look(t, Pools(s, broken("", fs.ErrNotExist))), Unknown, problem.LookFailed, "lvm2")
	says(t, look(t, Pools(s, broken("", errors.New("exit status 5")))), Unknown, problem.LookFailed, "exit status 5")
	says(t, look(t, Pools(s, broken("  WARNING: odd", nil))), Unknown, problem.LookFailed, "report of lvs")
}

func TestApplications(t *testing.T) {
	list := func(err error, all ...*quiesce.Application) Check {
		return Applications(Subject{Paths: []string{"/srv"}}, func(context.Context) ([]*quiesce.Application, error) { return all, err })
	}
	app := func(id string, policy quiesce.Policy, err error) *quiesce.Application {
		return &quiesce.Application{About: writer.About{ID: id}, Policy: policy, Err: err}
	}
	denied := problem.Newf(problem.WriterPassword, "", "password authentication failed")
	healthy(t, look(t, list(nil)))
	healthy(t, look(t, list(nil, app("redis:1", quiesce.Crash, nil))))
	fs := look(t, list(nil, app("redis:1", quiesce.Fail, nil), app("a:1", quiesce.Exclude, denied), app("a:2", quiesce.Crash, denied), app("a:3", quiesce.Fail, denied)))
	says(t, fs, Warning, problem.WriterPassword, "a:1", "password")
	says(t, fs, Warning, problem.WriterPassword, "a:2")
	says(t, fs, Failure, problem.WriterPassword, "a:3")
	says(t, fs, OK, "", "redis:1")
	says(t, look(t, list(errors.New("odd"))), Unknown, problem.LookFailed, "odd")
}

func TestLeftovers(t *testing.T) {
	cleaned := 0
	check := func(all ...Left) Check {
		list := func(context.Context) ([]Left, error) { return all, nil }
		return Leftovers(list, func(context.Context) ([]Left, error) {
			cleaned++
			return all, nil
		})
	}
	healthy(t, look(t, check()))
	fs := look(t, check(Left{Text: "snapshot a"}, Left{Text: "job b"}, Left{Text: "odd c", Code: problem.LeftoverForeign}))
	says(t, fs, Warning, problem.LeftBehind, "snapshot a")
	says(t, fs, Warning, problem.LeftoverForeign, "odd c")
	Mend(t.Context(), fs)
	if cleaned != 1 {
		t.Errorf("cleaned %d times", cleaned)
	}
	says(t, fs[:2], OK, "", "snapshot a")
	says(t, fs[2:], Warning, problem.LeftoverForeign, "odd c")
}

func TestFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "jobs")
	fs := look(t, Folders(dir))
	healthy(t, fs)
	Mend(t.Context(), fs)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 || fs[0].Mended == "" {
		t.Errorf("got %v, %v, %+v", st, err, fs)
	}
	healthy(t, look(t, Folders(dir)))
	must(t, os.Chmod(dir, 0o755))
	fs = look(t, Folders(dir))
	says(t, fs, Warning, problem.FolderWrong, dir, "0755")
	Mend(t.Context(), fs)
	healthy(t, fs)
	healthy(t, look(t, Folders(dir)))
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 12345, -1))
		says(t, look(t, Folders(dir)), Warning, problem.FolderWrong, "12345")
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	says(t, look(t, Folders(file)), Failure, problem.StateLost, "no folder")
	says(t, look(t, Folders(file+"/jobs")), Failure, problem.StateLost, "in its way")

	v := scratch.New(t, "ext4", 64*mib)
	must(t, syscall.Mount("", v.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	says(t, look(t, Folders(v.Dir+"/state/jobs")), Failure, problem.StateLost, v.Dir+"/state/jobs", "cannot be made: "+v.Dir+": read-only file system")
	must(t, syscall.Mount("", v.Dir, "", syscall.MS_REMOUNT, ""))
	healthy(t, look(t, Folders(v.Dir+"/state/jobs")))
}
