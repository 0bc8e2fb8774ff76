package doctor

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/problem"
)

// A rival is what takes snapshots too, sits in the way of every write, or reads
// or moves all files.
type rival struct{ name, what string }

// Modules of the kernel, by the names in /proc/modules.
var rivalModules = []rival{
	{"dattobd", "of Datto, takes snapshots of block devices"},
	{"elastio_snap", "of Elastio, takes snapshots of block devices"},
	{"veeamsnap", "of Veeam, takes snapshots of block devices"},
	{"veeamblksnap", "of Veeam, takes snapshots of block devices"},
	{"blksnap", "of Veeam, takes snapshots of block devices"},
	{"bdevfilter", "of Veeam, sees every write to block devices"},
	{"hcpdriver", "of R1Soft, takes snapshots of block devices"},
	{"snapapi26", "of Acronis, takes snapshots of block devices"},
	{"file_protector", "of Acronis, sees every access to files"},
}

// Programs, by the short names in /proc/PID/comm, which end after 15 bytes.
var rivalPrograms = []rival{
	{"dlad", "Datto's agent, takes snapshots"},
	{"veeamservice", "Veeam's agent, takes snapshots"},
	{"veeamagent", "Veeam's agent, takes snapshots"},
	{"cdp-agent", "R1Soft's agent, takes snapshots"},
	{"timeshift", "takes snapshots of the system"},
	{"snapper", "takes snapshots of btrfs"},
	{"clamscan", "reads all files"},
	{"clamdscan", "reads all files"},
	{"e4defrag", "moves files"},
	{"xfs_fsr", "moves files"},
}

// Files that say that something is run at certain times, below /etc.
var rivalTimers = []rival{
	{"systemd/system/timers.target.wants/snapper-timeline.timer", "snapper's snapshots, each hour"},
	{"cron.hourly/snapper", "snapper's snapshots, each hour"},
	{"cron.d/timeshift-hourly", "Timeshift's snapshots, each hour"},
	{"cron.d/timeshift-boot", "Timeshift's snapshots, after each boot"},
}

// Rivals looks for other programs that take snapshots now, or are in the way.
func Rivals(h Host) Check {
	return Check{Name: "others", Look: func(ctx context.Context) ([]Finding, error) {
		found, err := loaded(h)
		if err != nil {
			return nil, err
		}
		running, err := runs(ctx, h)
		if err != nil {
			return found, err
		}
		found = append(found, running...)
		if len(found) == 0 {
			found = append(found, fine("no other program was found that takes snapshots, moves files or reads them all"))
		}
		return found, nil
	}}
}

// Timers looks for snapshots of others at certain times.
func Timers(h Host) Check {
	return Check{Name: "timers", Look: func(context.Context) (found []Finding, err error) {
		for _, t := range rivalTimers {
			if _, err := os.Lstat(filepath.Join(h.Etc, t.name)); err == nil {
				found = append(found, warned(problem.OtherSnapshots, "/etc/"+t.name, "runs %s", t.what).
					so("two snapshots at once cost twice; read-only btrfs snapshots are left out of the backup", "let the two run at different times"))
			}
		}
		if len(found) == 0 {
			found = append(found, fine("neither snapper nor Timeshift takes snapshots at certain times"))
		}
		return found, nil
	}}
}

func loaded(h Host) (found []Finding, err error) {
	f, err := os.Open(filepath.Join(h.Proc, "modules"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without modules
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), " ")
		for _, r := range rivalModules {
			if r.name == name {
				found = append(found, warned(problem.OtherSnapshots, "module "+name, "is loaded: %s", r.what).
					so("two such programs at once make every write wait twice, and may each be at fault for what the other does", "let the two run at different times, or unload the module"))
			}
		}
	}
	return found, lines.Err()
}

func runs(ctx context.Context, h Host) (found []Finding, err error) {
	err = eachProcess(ctx, h, func(pid int, dir string) {
		comm := program(dir)
		at := slices.IndexFunc(rivalPrograms, func(r rival) bool { return r.name == comm })
		if at >= 0 {
			found = append(found, warned(problem.OtherSnapshots, named(comm, pid), "is running: %s", rivalPrograms[at].what).
				so("a backup beside it takes longer, saves more originals, and needs a larger cache file", "let the two run at different times"))
		}
	})
	return found, err
}

// eachProcess calls each for every process.
func eachProcess(ctx context.Context, h Host, each func(pid int, dir string)) error {
	d, err := os.Open(h.Proc)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if pid, err := strconv.Atoi(name); err == nil {
			each(pid, filepath.Join(h.Proc, name))
		}
	}
	return nil
}

// program is the short name of a process, empty when it is gone.
func program(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "comm"))
	return strings.TrimSuffix(string(b), "\n")
}

func named(comm string, pid int) string { return comm + " (pid " + strconv.Itoa(pid) + ")" }
