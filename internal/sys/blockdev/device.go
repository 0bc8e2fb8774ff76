package blockdev

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Superblock is what lies on a device.
type Superblock struct {
	Type  string // "ext", "xfs", "btrfs", "vfat", "swap"; empty where it is none of these
	UUID  string // lower case; of vfat the serial number, "abcd-1234"
	Label string
}

// ReadSuperblock reads the superblock of the device at path, which must have
// the number "MAJOR:MINOR".
func ReadSuperblock(path, number string) (Superblock, error) {
	f, err := openDevice(path, number)
	if err != nil {
		return Superblock{}, err
	}
	defer f.Close()
	s, err := ParseSuperblock(f)
	if err != nil {
		return Superblock{}, fmt.Errorf("superblock of %s: %w", path, err)
	}
	return s, nil
}

// PartitionType returns the type of one partition, counted from 1, of the disk
// at path, which must have the number "MAJOR:MINOR". It is empty where the
// disk has no GPT.
func PartitionType(path, number string, partition int) (string, error) {
	f, err := openDevice(path, number)
	if err != nil {
		return "", err
	}
	defer f.Close()
	typ, err := ParseGPT(f, partition)
	if err != nil {
		return "", fmt.Errorf("partition table of %s: %w", path, err)
	}
	return typ, nil
}

// openDevice opens a block device for reading and makes sure that the node is
// the device that is meant: nodes of /dev may be missing or stale in a
// container.
func openDevice(path, number string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	have := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || have != number {
		unix.Close(fd)
		return nil, fmt.Errorf("%s is not the block device %s", path, number)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ParseSuperblock recognises the file systems whose kernel interfaces do not
// tell UUID and label everywhere. Layouts: ext4 fs/ext4/ext4.h, XFS
// xfs_format.h, btrfs btrfs_tree.h, FAT Microsoft's FAT specification, swap
// linux/swap.h.
func ParseSuperblock(r io.ReaderAt) (Superblock, error) {
	head, err := readUpTo(r, 0, 8192)
	if err != nil {
		return Superblock{}, err
	}
	has := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case has(0, "XFSB"):
		return Superblock{"xfs", formatUUID(head[32:48]), text(head[108:120])}, nil
	case has(1024+56, "\x53\xef"):
		return Superblock{"ext", formatUUID(head[1024+104 : 1024+120]), text(head[1024+120 : 1024+136])}, nil
	case has(4096-10, "SWAPSPACE2"): // with 4 KiB pages
		return Superblock{"swap", formatUUID(head[1024+12 : 1024+28]), text(head[1024+28 : 1024+44])}, nil
	case has(510, "\x55\xaa") && has(82, "FAT32   "):
		return fat(head[67:71], head[71:82]), nil
	case has(510, "\x55\xaa") && (has(54, "FAT12   ") || has(54, "FAT16   ")):
		return fat(head[39:43], head[43:54]), nil
	}
	tail, err := readUpTo(r, 0x10000, 4096)
	if err != nil {
		return Superblock{}, err
	}
	if len(tail) == 4096 && string(tail[64:72]) == "_BHRfS_M" {
		return Superblock{"btrfs", formatUUID(tail[32:48]), text(tail[299:555])}, nil
	}
	return Superblock{}, nil
}

// fat writes the serial number in the usual form. The label of the boot sector
// may be older than that of the root directory, which is not read.
func fat(serial, label []byte) Superblock {
	n := binary.LittleEndian.Uint32(serial)
	name := strings.TrimRight(text(label), " ")
	if name == "NO NAME" {
		name = ""
	}
	if n == 0 {
		return Superblock{"vfat", "", name}
	}
	return Superblock{"vfat", fmt.Sprintf("%04x-%04x", n>>16, n&0xffff), name}
}

// ParseGPT returns the type of a partition, or nothing where there is no GPT
// or no such partition. Layout: UEFI specification 2.10, section 5.3. The size
// of a logical block is not known here, so the two that exist are tried.
func ParseGPT(r io.ReaderAt, partition int) (string, error) {
	for _, block := range []int64{512, 4096} {
		header, err := readUpTo(r, block, 92)
		if err != nil {
			return "", err
		}
		if len(header) < 92 || string(header[:8]) != "EFI PART" {
			continue
		}
		first := binary.LittleEndian.Uint64(header[72:])
		count := binary.LittleEndian.Uint32(header[80:])
		size := binary.LittleEndian.Uint32(header[84:])
		if first > 1<<40 || size < 128 || size > 4096 {
			return "", errors.New("damaged GPT header")
		}
		if partition < 1 || uint32(partition) > count {
			return "", nil
		}
		entry, err := readUpTo(r, int64(first)*block+int64(partition-1)*int64(size), 16)
		if err != nil {
			return "", err
		}
		if len(entry) < 16 || len(bytes.Trim(entry, "\x00")) == 0 {
			return "", nil
		}
		return formatGUID(entry), nil
	}
	return "", nil
}

// formatGUID writes a GUID, whose first three fields are little-endian.
func formatGUID(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%s-%s", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), hex.EncodeToString(b[8:10]), hex.EncodeToString(b[10:16]))
}

// readUpTo reads n bytes at off, fewer at the end.
func readUpTo(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:got], nil
}
