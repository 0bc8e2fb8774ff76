package inode

import (
	"math"
	"time"
)

// A Time is exact to the nanosecond. It counts them from the smallest 32-bit
// number of seconds on, December 1901, up to 2486: what XFS can hold, and more
// than ext4 can (fs/xfs/libxfs/xfs_format.h: XFS_BIGTIME_TIME_MAX).
type Time uint64

const (
	epoch  = math.MinInt32
	second = 1_000_000_000
)

// TimeOf makes a Time of what the kernel calls one. What is outside of the
// range becomes its end.
func TimeOf(sec, nsec int64) Time {
	switch since := sec - epoch; {
	case since < 0:
		return 0
	case since >= math.MaxUint64/second:
		return math.MaxUint64
	default:
		return Time(uint64(since)*second + uint64(nsec))
	}
}

// Unix returns t in seconds since 1970 and nanoseconds since then.
func (t Time) Unix() (sec, nsec int64) { return int64(t/second) + epoch, int64(t % second) }

// Time returns t as a time.Time.
func (t Time) Time() time.Time { return time.Unix(t.Unix()) }

// Is tells whether t is what the kernel shows as sec and nsec.
func (t Time) Is(sec, nsec int64) bool { return t == TimeOf(sec, nsec) }
