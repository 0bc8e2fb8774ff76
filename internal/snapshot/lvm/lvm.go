package lvm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/device"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Name is the provider's.
const Name = "lvm"

// A Provider takes snapshots of thin logical volumes, and of classic ones where people
// have named it.
type Provider struct {
	console *console
	table   func(context.Context) (*volume.Table, error)
	maximum cachefile.Size // of the room for the originals of a classic volume
	always  bool           // LVM is asked for leftovers, whatever the kernel and its notes say

	once sync.Once
	laid *stack.Provider
}

// New makes a Provider; table says what is mounted.
func New(table func(context.Context) (*volume.Table, error)) *Provider {
	return &Provider{console: host, table: table}
}

// WithMaximum is the same provider, which lets the originals of a classic volume take
// no more than that of the free extents of its group.
func (p *Provider) WithMaximum(m cachefile.Size) *Provider {
	return &Provider{console: p.console, table: p.table, maximum: m}
}

// Name is "lvm".
func (p *Provider) Name() string { return Name }

// About says what these snapshots are.
func (p *Provider) About() string {
	return "snapshots of thin logical volumes, in their pool; where it is named also of classic ones, by free extents of their group"
}

// Check is nil when a snapshot of v, a thin volume, can be made as the host is now.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := candidate(v); err != nil {
		return err
	}
	c, err := open(v)
	if err != nil {
		return err
	}
	defer c.Close()
	o, err := find(c, v)
	if err != nil {
		return err
	}
	lvs, err := p.console.list(ctx, "-S", "lv_uuid="+o.lv.UUID)
	if err != nil {
		return coded(string(v.ID), err)
	}
	if err := o.known(v, lvs); err != nil {
		return err
	}
	return o.pool.lets(o.lv.Group+"/"+o.lv.Pool, o.mapped)
}

// candidate says why a volume cannot be on a thin logical volume that could be
// taken, by what is known of it.
func candidate(v volume.Volume) error {
	id := string(v.ID)
	switch {
	case len(v.Stack) == 0, v.Stack[0].DMName == "":
		return problem.Newf(problem.NoProvider, id, "is not on a logical volume of LVM")
	case v.Stack[0].Type != "lvm":
		return problem.Newf(problem.NoProvider, id, "is on %s, and not directly on a logical volume of LVM", v.Stack[0].DMName)
	case v.Stack[0].Number != v.Device:
		return problem.Newf(problem.NoProvider, id, "is not on %s alone", v.Stack[0].DMName)
	case slices.Contains(v.Options, "norecovery"), slices.Contains(v.Options, "noload"):
		return problem.Newf(problem.NoProvider, id, "is mounted without having its journal replayed, which takes a layer that can be written; the provider dm has one")
	}
	if err := cmp.Or(device.Check(v.FSType), device.Apart(v.Options)); err != nil {
		return problem.New(problem.NoProvider, id, err)
	}
	return nil
}

// open opens the door to device-mapper.
func open(v volume.Volume) (*dm.Control, error) {
	c, err := dm.Open()
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV):
		return nil, problem.New(problem.NoProvider, string(v.ID), fmt.Errorf("the kernel has no device-mapper here: %w", err))
	case errors.Is(err, fs.ErrPermission):
		return nil, problem.New(problem.NotAllowed, string(v.ID), fmt.Errorf("device-mapper is for root: %w", err))
	}
	return nil, problem.New(problem.SnapshotFailed, string(v.ID), err)
}

// An origin is a thin volume that can be taken.
type origin struct {
	lv      logical
	number  dm.Number // of its device
	sectors uint64
	thin    uint64 // its number in the pool
	mapped  uint64 // sectors that it has there
	pool    pool
}

// find asks device-mapper about the logical volume that v is on.
func find(c *dm.Control, v volume.Volume) (o origin, err error) {
	id := string(v.ID)
	n, err := dm.ParseNumber(v.Device)
	if err != nil {
		return o, problem.New(problem.NoProvider, id, err)
	}
	d, err := settled(c, n)
	switch {
	case errors.Is(err, dm.ErrNone):
		return o, problem.New(problem.VolumeLost, id, err)
	case err != nil:
		return o, problem.New(problem.SnapshotFailed, id, err)
	case d.Suspended:
		return o, problem.Newf(problem.DeviceSuspended, id, "its device %s is suspended: another program changes it, or died in it (dmsetup resume %s lets everybody go on)", d.Name, d.Name)
	}
	table, err := c.Table(n)
	if err != nil {
		return o, problem.New(problem.SnapshotFailed, id, err)
	}
	uuid, ok := lvUUID(d.UUID)
	if !ok || len(table) != 1 || table[0].Type != "thin" {
		return o, notThin(d, table, v)
	}
	if o, err = thinOf(table[0]); err != nil {
		return o, problem.New(problem.NoProvider, id, err)
	}
	o.lv.UUID, o.number = uuid, n
	for _, d := range v.Stack[1:] {
		if err := o.bears(c, v, d); err != nil {
			return o, err
		}
	}
	if err := unreplayed(v, d); err != nil {
		return o, err
	}
	if o.mapped, err = mapped(c, n); err != nil {
		return o, problem.New(problem.SnapshotFailed, id, err)
	}
	if o.pool, err = poolState(c, o.pool.number); err != nil {
		return o, problem.New(problem.SnapshotFailed, id, err)
	}
	if o.pool.suspended { // a command of LVM would wait for it
		return o, problem.Newf(problem.DeviceSuspended, id, "its thin pool, %s, is suspended: another program changes it, or died in it (dmsetup resume lets everybody go on)", o.pool.number)
	}
	return o, nil
}

// known completes it by what LVM says of it.
func (o *origin) known(v volume.Volume, lvs []logical) error {
	i := slices.IndexFunc(lvs, func(lv logical) bool {
		return lv.UUID == o.lv.UUID && lv.Type == "thin" && lv.Thin == strconv.FormatUint(o.thin, 10)
	})
	if i < 0 {
		return problem.Newf(problem.NoProvider, string(v.ID), "is on %s, which LVM does not know as a thin volume", v.Stack[0].DMName)
	}
	o.lv = lvs[i]
	if _, ours := o.lv.read(); ours {
		return problem.Newf(problem.NoProvider, string(v.ID), "is itself a snapshot of ours")
	}
	if err := o.lv.groupTakes(); err != nil {
		return problem.New(problem.NoProvider, string(v.ID), err)
	}
	return nil
}

func kindOf(target string) string {
	switch target {
	case "snapshot-origin":
		return "the origin of a classic snapshot"
	}
	return "a classic volume (" + target + ")"
}

// thinOf reads the table of a thin volume: "POOL NUMBER", and for one with an
// external origin a third word.
func thinOf(t dm.Target) (o origin, err error) {
	f := strings.Fields(t.Params)
	if len(f) != 2 {
		return o, fmt.Errorf("a thin volume with an external origin cannot be taken (%s)", t.Params)
	}
	o.sectors = t.Length
	o.pool.number, err = dm.ParseNumber(f[0])
	if err == nil {
		o.thin, err = strconv.ParseUint(f[1], 10, 24)
	}
	return o, err
}

// lvUUID is the logical volume's UUID, as LVM writes it, in that of its device:
// "LVM-", the volume group's and the volume's, 32 letters and digits each. What has
// more is a layer within one.
func lvUUID(dmUUID string) (string, bool) {
	rest, ok := strings.CutPrefix(dmUUID, "LVM-")
	if !ok || len(rest) != 64 {
		return "", false
	}
	u := rest[32:]
	return strings.Join([]string{u[:6], u[6:10], u[10:14], u[14:18], u[18:22], u[22:26], u[26:]}, "-"), true
}

// dmUUID is the reverse.
func dmUUID(lv logical) string {
	return "LVM-" + strings.ReplaceAll(lv.GroupUUID, "-", "") + strings.ReplaceAll(lv.UUID, "-", "")
}

var (
	_ snapshot.Joiner    = (*Provider)(nil)
	_ snapshot.OnRequest = (*Provider)(nil)
)
