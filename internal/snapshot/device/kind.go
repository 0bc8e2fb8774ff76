package device

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/blockdev"
	"stillpoint/internal/sys/mount"
)

// A kind is how file systems of a type are mounted.
type kind struct {
	driver  string
	always  []mount.Option
	as      []mount.Option // as it lies there, when the journal is of no concern
	replays func(device io.ReaderAt, frozen bool) (bool, error)
}

var readOnly = mount.Option{Key: "ro"}

// kindOf knows the types by the names that mountinfo has for them.
func kindOf(fsType string) (kind, error) {
	switch fsType {
	case "ext2", "ext3", "ext4":
		return kind{
			driver:  "ext4", // as "ext2" it does not know noload
			always:  []mount.Option{readOnly, {Key: "errors", Value: "continue"}},
			as:      []mount.Option{{Key: "noload"}},
			replays: extReplays,
		}, nil
	case "xfs":
		return kind{
			driver:  "xfs",
			always:  []mount.Option{readOnly, {Key: "nouuid"}},
			as:      []mount.Option{{Key: "norecovery"}},
			replays: func(_ io.ReaderAt, frozen bool) (bool, error) { return !frozen, nil },
		}, nil
	}
	return kind{}, problem.Newf(problem.NoProvider, fsType, "a copy of such a device cannot be shown beside it; only ext2, ext3, ext4 and XFS can")
}

// Check is nil when devices with file systems of a type can be shown.
func Check(fsType string) error {
	_, err := kindOf(fsType)
	return err
}

// Unreplayed tells whether the journal of a file system that is mounted read-only, on a
// device that answers, holds what is not in its place: it was mounted for writing, and made
// read-only by an error. Newer kernels leave such an ext4 writable by its options, or say
// "emergency_ro", and refuse to freeze it: there is no snapshot of that, and nothing to be
// told here. An XFS that has an error ends altogether.
func Unreplayed(fsType string, options []string, d Device) (bool, error) {
	if !slices.Contains(options, "ro") {
		return false, nil
	}
	k, err := kindOf(fsType)
	if err != nil {
		return false, err
	}
	f, err := blockdev.Open(d.Node, d.Number)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return k.replays(f, true)
}

// Apart is nil for a file system that lies on its device alone, by the options of its
// superblock: XFS can have its log, and the content of files, on other ones. A copy of
// the first cannot be mounted without these, and the log's device is in use.
func Apart(options []string) error {
	i := slices.IndexFunc(options, func(o string) bool {
		return strings.HasPrefix(o, "logdev=") || strings.HasPrefix(o, "rtdev=")
	})
	if i < 0 {
		return nil
	}
	return fmt.Errorf("a part of it lies on another device (%s)", options[i])
}

// extReplays tells whether the journal of an ext4 holds what is not in its place
// (fs/ext4/ext4.h: the superblock at 1024, s_magic at 0x38, s_feature_incompat at
// 0x60, in which 0x4 is "needs recovery"). A freeze clears it, as an unmount does.
// A journal on another device (s_feature_compat at 0x5c has 0x4, "has a journal", and
// s_journal_inum at 0xe0 is 0) is not replayed: what is written to it meanwhile would
// not go to the layer, but to the journal of the origin.
func extReplays(device io.ReaderAt, _ bool) (bool, error) {
	var super [1024]byte
	if _, err := device.ReadAt(super[:], 1024); err != nil {
		return false, fmt.Errorf("read the superblock: %w", err)
	}
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 {
		return false, fmt.Errorf("no superblock of ext4 is on it")
	}
	if binary.LittleEndian.Uint32(super[0x60:])&0x4 == 0 {
		return false, nil
	}
	if binary.LittleEndian.Uint32(super[0x5c:])&0x4 != 0 && binary.LittleEndian.Uint32(super[0xe0:]) == 0 {
		return false, problem.Newf(problem.SnapshotFailed, "", "its journal lies on another device and was not replayed when the volume was mounted; unmount it, and mount it once without noload (norecovery), which replays it")
	}
	return true, nil
}
