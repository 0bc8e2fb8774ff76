package zfs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Closed is when a transaction group of a pool was closed: what was changed later is not
// in it. The module remembers the last hundred groups (zfs_txg_history, whose default
// that is), for each when it was opened, in nanoseconds of the raw monotonic clock, and
// for how long it was open (spa_txg_history_show in module/zfs/spa_stats.c).
func Closed(pool string, group uint64) (time.Time, error) {
	f, err := os.Open("/proc/spl/kstat/zfs/" + pool + "/txgs")
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	at, err := closed(f, group)
	if err != nil {
		return time.Time{}, failed("read", f.Name(), err)
	}
	var raw unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &raw); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(at - time.Duration(raw.Nano())), nil
}

// closed finds a group and adds the time when it was opened and that for which it was.
func closed(r io.Reader, group uint64) (time.Duration, error) {
	const birth, open = 1, 8
	want := strconv.FormatUint(group, 10)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) <= open || f[0] != want {
			continue
		}
		from, err := strconv.ParseInt(f[birth], 10, 64)
		if err != nil {
			return 0, err
		}
		long, err := strconv.ParseInt(f[open], 10, 64)
		if err != nil {
			return 0, err
		}
		if from <= 0 || long <= 0 {
			return 0, fmt.Errorf("group %s is not closed", want)
		}
		return time.Duration(from + long), nil
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("it has no group %s", want)
}
