package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stillpoint/internal/sys/blockdev"
)

// A Table is what was mounted at one moment. It does not change; what is
// mounted afterwards is in the next one.
type Table struct {
	volumes  []Volume
	tree     tree
	swaps    []Swap
	warnings []error
	probe    Probe
}

// Read reads what is mounted. It never waits long for what does not answer:
// what could not be learned is left empty and named by Warnings.
func Read(ctx context.Context, roots Roots) (*Table, error) {
	r := &reader{
		ctx: ctx, roots: roots, until: time.Now().Add(readLimit),
		devices:  devices{sys: roots.Sys, dev: roots.Dev, seen: map[string]block{}},
		udevSeen: map[string]map[string]string{}, twins: map[string]bool{},
	}
	records, err := r.records()
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	r.group(records)
	for i := range r.volumes {
		r.complete(&r.volumes[i])
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read mounts: %w", ctx.Err())
		}
	}
	setIDs(r.volumes, r.twins)
	swaps, err := r.swaps()
	if err != nil {
		return nil, fmt.Errorf("read swap areas: %w", err)
	}
	return &Table{volumes: r.volumes, tree: r.tree, swaps: swaps, warnings: r.warnings, probe: roots.Probe}, nil
}

// Volumes returns all volumes, each once, in the order of mountinfo.
func (t *Table) Volumes() []Volume { return t.volumes }

// Swaps returns the areas that are swapped to.
func (t *Table) Swaps() []Swap { return t.swaps }

// Warnings names what could not be learned, and why.
func (t *Table) Warnings() []error { return t.warnings }

// A reader gathers a Table.
type reader struct {
	ctx      context.Context
	roots    Roots
	until    time.Time // no probe is waited for longer
	devices  devices
	udevSeen map[string]map[string]string
	pools    []pool
	twins    map[string]bool // by device: what the kernel does not call by the UUID on disk
	volumes  []Volume
	tree     tree
	warnings []error
}

func (r *reader) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Errorf(format, args...))
}

// records reads mountinfo. The mounts are those of the calling thread: another
// one may have a namespace of its own.
func (r *reader) records() ([]record, error) {
	path := filepath.Join(r.roots.Proc, "thread-self/mountinfo") // since Linux 3.17
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(r.roots.Proc, "self/mountinfo")
	}
	text, err := blockdev.ReadMounts(path)
	if text == nil && err != nil {
		return nil, err
	}
	if err != nil {
		r.warn("%w", err)
	}
	records, bad := parseMountinfo(string(text))
	r.warnings = append(r.warnings, bad...)
	return records, nil
}

// group makes one volume of all records that show the same file system, of
// btrfs the same subvolume, and builds the tree of mounts.
func (r *reader) group(records []record) {
	type key struct{ device, fsType, subvolume string }
	index := make(map[key]int, len(records))
	r.tree = newTree(len(records))
	for _, rec := range records {
		k := key{rec.device, rec.fsType, ""}
		top := "/"
		var sub *Subvolume
		if rec.fsType == "btrfs" {
			sub, k.subvolume = subvolume(rec.super)
			top = sub.Path
		}
		i, ok := index[k]
		if !ok {
			i = len(r.volumes)
			index[k] = i
			r.volumes = append(r.volumes, Volume{
				Kind:   kindOf(rec.fsType, rec.source, strings.HasPrefix(rec.device, "0:")),
				FSType: rec.fsType, Source: rec.source, Device: rec.device, Subvolume: sub,
				ReadOnly: has(rec.super, "ro"), Options: rec.super,
			})
		}
		m := Mount{ID: rec.id, Parent: rec.parent, Point: rec.point, ReadOnly: has(rec.options, "ro"), Options: rec.options}
		m.Root, m.Deleted = part(rec.root, top)
		r.tree.add(m, i)
	}
	r.tree.settle()
	for _, n := range r.tree.nodes {
		v := &r.volumes[n.volume]
		v.Mounts = append(v.Mounts, n.mount)
	}
}

// subvolume reads the options subvolid=256,subvol=/@ of a btrfs superblock.
// They tell of the subvolume that the root of this mount lies in, be it a bind
// mount of a directory (btrfs_show_options() in fs/btrfs/super.c).
func subvolume(super []string) (sub *Subvolume, id string) {
	id, _ = option(super, "subvolid")
	path, _ := option(super, "subvol") // missing once it is deleted
	sub = &Subvolume{Path: path}
	if _, err := fmt.Sscan(id, &sub.ID); err != nil {
		sub.ID = 0
	}
	return sub, id
}

// complete finds out everything about a volume that mountinfo does not say.
func (r *reader) complete(v *Volume) {
	if v.Kind != Local && v.Kind != Memory {
		return
	}
	facts := r.facts(v)
	v.Size, v.Free, v.Used = facts.Size, facts.Free, facts.Used
	if v.Kind == Memory {
		return
	}
	r.identify(v, facts)
	switch v.FSType {
	case "btrfs":
		p := r.btrfs(facts.UUID, v.Source)
		v.UUID, v.Stack, r.twins[v.Device] = p.uuid, r.devices.stack(p.devices...), p.twin
		if v.Label == "" {
			v.Label = p.label
		}
	case "bcachefs": // all devices, "/dev/sda:/dev/sdb"
		var numbers []string
		for path := range strings.SplitSeq(v.Source, ":") {
			if n, ok := r.devices.number(path); ok {
				numbers = append(numbers, n)
			}
		}
		v.Stack = r.devices.stack(numbers...)
	default:
		v.Stack = r.devices.stack(v.Device)
	}
	switch {
	case r.isEFI(v):
		v.Kind = EFI
	case inRAM(v.Stack):
		v.Kind = Memory
	}
}

// facts asks the file system through the first of its mounts that can be
// reached without waiting for a server.
func (r *reader) facts(v *Volume) Facts {
	for _, m := range v.Mounts {
		if m.Hidden || r.behindServer(m.ID) {
			continue
		}
		f, err := ask(r, func() (Facts, error) { return r.roots.Probe.FileSystem(m.Point, m.ID) })
		if err != nil {
			r.warn("sizes of %s: %w", m.Point, err)
		}
		return f
	}
	if v.Kind == Local {
		r.warn("sizes of %s: none of its mounts can be reached", v.Mounts[0].Point)
	}
	return Facts{}
}

// behindServer reports whether a path lookup for the mount passes through
// something that may hang.
func (r *reader) behindServer(id int) bool {
	for _, n := range r.tree.above(id) {
		v := &r.volumes[n.volume]
		if v.Kind == Network || isFUSE(v.FSType) {
			return true
		}
	}
	return false
}

// ask waits for an answer of the probe within the limits of the reading.
func ask[T any](r *reader, f func() (T, error)) (T, error) {
	return within(r.ctx, min(answerLimit, time.Until(r.until)), f)
}

// setIDs gives every volume its ID.
func setIDs(volumes []Volume, twins map[string]bool) {
	owner := map[string]string{} // UUID to device
	for _, v := range volumes {
		if v.FSType == "btrfs" && v.UUID != "" && owner[v.UUID] == "" && !twins[v.Device] {
			owner[v.UUID] = v.Device
		}
	}
	for i := range volumes {
		v := &volumes[i]
		name := v.UUID
		if first, taken := owner[name]; name != "" && !taken {
			owner[name] = v.Device
		} else if taken && first != v.Device {
			name += "@" + v.Device
		}
		switch {
		case v.FSType == "zfs":
			name = "zfs:" + v.Source
		case name == "":
			name = v.FSType + ":" + v.Device
		}
		if v.Subvolume != nil {
			name = fmt.Sprintf("%s/%d", name, v.Subvolume.ID)
		}
		v.ID = ID(name)
	}
}

func has(options []string, word string) bool {
	for _, o := range options {
		if o == word {
			return true
		}
	}
	return false
}
